"""Augmentation: what it does to one image is what the papers say, and it depends on (seed, epoch, batch) alone."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from espalier.core import EspalierError
from espalier.tasks import Augment, Loader, Normalise, classification_loss
from espalier.tasks.augmentation.colour import recoloured
from espalier.tasks.augmentation.geometry import crop_box, crop_draws, resized
from espalier.tasks.augmentation.mixing import cut_box, mix, mixed, pasted, shares

AS_IS = Normalise((0.0,) * 3, (1.0,) * 3)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(images: torch.Tensor) -> torch.Tensor:
    """Stand for a library's transform: it draws from all three sources of random numbers."""
    return images + torch.rand(()) + float(np.random.rand()) + random.random()


EVERYTHING = {
    "shift": Augment(flip=True, pad=2),
    "crop": Augment(flip=True, crop_area=(0.2, 1.0)),
    "colour": Augment(colour=0.4),
    "mixup": Augment(mixup=0.2),
    "cutmix": Augment(cutmix=1.0),
    "both": Augment(mixup=0.2, cutmix=1.0),
    "library": Augment(transform=noisy),
}


def loader(augment: Augment | None, **options: object) -> Loader:
    images = torch.randint(0, 256, (40, 3, 12, 10), generator=stream(3), dtype=torch.uint8)
    given = {"batch_size": 16, "shuffle": True, "classes": 5, **options}
    return Loader(images, torch.arange(40) % 5, AS_IS, augment=augment, **given)


def same(batches: Iterable, others: Iterable) -> bool:
    """Say whether two passes gave the same bits."""
    pairs = zip(batches, others, strict=True)
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


# ---------------------------------------------------------------- purity


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_batch_follows_from_seed_epoch_and_number(name: str) -> None:
    torch.manual_seed(0)
    first = loader(EVERYTHING[name])
    epochs = [list(first) for _ in range(2)]
    torch.manual_seed(1)
    next(iter(first))  # a pass that breaks off, other people's random numbers, and another order of asking
    resumed = loader(EVERYTHING[name], epoch=1)
    assert same(epochs[1], resumed)
    last = first.batch(first.order(1)[2], 1, 2)
    assert same([last], epochs[1][2:])
    other_seed, other_epoch = loader(EVERYTHING[name], seed=1), epochs[1]
    assert not torch.equal(next(iter(other_seed))[0], epochs[0][0][0])
    assert not torch.equal(other_epoch[0][0], epochs[0][0][0])


@pytest.mark.parametrize("name", ["shift", "crop", "colour", "library"])
def test_every_batch_is_augmented_in_its_own_way(name: str) -> None:
    image = torch.randint(0, 256, (1, 3, 12, 10), generator=stream(3), dtype=torch.uint8)
    alike = Loader(image.expand(32, -1, -1, -1), torch.zeros(32), AS_IS, 16, augment=EVERYTHING[name])
    others = {"seed": 1}, {"rank": 0, "ranks": 2}, {"rank": 1, "ranks": 2}
    passes = [x for _ in range(2) for x, _ in alike]
    passes += [next(iter(dataclasses.replace(alike, epoch=0, **other)))[0] for other in others]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(passes, 2))


@pytest.mark.parametrize("name", EVERYTHING)
def test_worker_processes_change_nothing(name: str) -> None:
    plain, ahead = loader(EVERYTHING[name]), loader(EVERYTHING[name], workers=2)
    for _ in range(2):
        assert same(plain, ahead)
    assert ahead.epoch == 2


def test_a_librarys_random_numbers_leave_everyone_elses_alone() -> None:
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = torch.rand(()), np.random.rand(), random.random()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    list(loader(EVERYTHING["library"]))
    assert (torch.rand(()), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_kornias_transforms_are_taken_as_they_are(workers: int) -> None:
    kornia = pytest.importorskip("kornia.augmentation", reason="kornia is not installed")
    transform = kornia.AugmentationSequential(
        kornia.RandomErasing(p=1.0), kornia.RandomGaussianBlur((3, 3), (0.1, 2.0))
    )
    torch.manual_seed(1)
    first = list(loader(Augment(flip=True, pad=1, transform=transform)))
    torch.manual_seed(2)
    assert same(first, loader(Augment(flip=True, pad=1, transform=transform), workers=workers))
    assert not same(first, loader(Augment(flip=True, pad=1)))


@given(count=st.integers(1, 60), each=st.integers(2, 5), ranks=st.integers(1, 4), shuffle=st.booleans())
def test_ranks_share_every_batch(count: int, each: int, ranks: int, shuffle: bool) -> None:
    images = torch.arange(count).float().view(-1, 1, 1, 1)
    whole = Loader(images, torch.arange(count), AS_IS, each * ranks, shuffle)
    assume(ranks == 1 or count >= (2 * ranks if shuffle else ranks))
    orders = [dataclasses.replace(whole, rank=rank, ranks=ranks).order(0) for rank in range(ranks)]
    seen = [int(i) for order in orders for part in order for i in part]
    if not shuffle:
        assert sorted(seen) == list(range(count))
        return
    assert len(set(seen)) == len(seen) >= count - 2 * ranks + 1
    assert len({len(order) for order in orders}) == 1  # else a rank would wait for the others' gradients for ever
    assert all(len(part) >= 2 for order in orders for part in order)
    first = whole.order(0)[0].tolist() if count >= each * ranks else []
    assert sorted(first) == sorted(int(i) for order in orders for part in order[:1] for i in part if first)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (40, {"batch_size": 4, "shuffle": True}, "batch_size=4 is too small for 3 processes: it must be at least 6"),
        (40, {"batch_size": 2, "shuffle": False}, "batch_size=2 is too small for 3 processes: it must be at least 3"),
        (2, {"batch_size": 8, "shuffle": False}, "2 examples are too few for 3 processes"),
    ],
)
def test_no_rank_is_left_without_a_part(count: int, options: dict, message: str) -> None:
    with pytest.raises(EspalierError, match=message):
        Loader(torch.zeros(count, 1, 1, 1), torch.zeros(count), AS_IS, ranks=3, **options)


# ---------------------------------------------------------------- crops


@given(
    seed=st.integers(0, 2**16), height=st.integers(1, 60), width=st.integers(1, 60), least=st.sampled_from([0.08, 0.5])
)
def test_crops_lie_inside_with_the_area_and_shape_asked_for(seed: int, height: int, width: int, least: float) -> None:
    top, left, h, w = crop_box(crop_draws(1, stream(seed))[0], (least, 1.0), height, width)
    assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0
    if min(height, width) >= 30:
        assert least * 0.85 <= h * w / (height * width) or (height / width > 4 / 3 or width / height > 4 / 3)
        assert 3 / 4 * 0.9 <= w / h <= 4 / 3 * 1.1


def test_crops_vary_and_reach_everywhere() -> None:
    boxes = [crop_box(draws, (0.08, 1.0), 20, 20) for draws in crop_draws(2000, stream(0))]
    assert {box[0] for box in boxes} >= set(range(14)) and {box[1] for box in boxes} >= set(range(14))
    assert max(top + h for top, _, h, _ in boxes if h < 15) == max(left + w for _, left, _, w in boxes if w < 15) == 20
    areas = np.array([h * w / 400 for _, _, h, w in boxes])
    assert areas.min() < 0.12 and areas.max() > 0.9 and abs(areas.mean() - 0.5) < 0.06


def test_resizing_is_exact_where_nothing_is_resized_and_copies_labels() -> None:
    image = torch.randint(0, 256, (3, 9, 7), generator=stream(0), dtype=torch.uint8)
    assert torch.equal(resized(image, (2, 1, 4, 5), (4, 5)), image[:, 2:6, 1:6])
    labels = torch.tensor([[0, 7], [7, 0]], dtype=torch.uint8)[None]
    assert set(resized(labels, (0, 0, 2, 2), (5, 5), labels=True).unique().tolist()) == {0, 7}
    assert len(resized(labels, (0, 0, 2, 2), (5, 5)).unique()) > 2


# ---------------------------------------------------------------- colour


def test_colour_by_hand() -> None:
    x = torch.rand(5, 3, 4, 6, generator=stream(0))
    found = recoloured(x, 0.5, stream(1))
    factors = 1 + 0.5 * (2 * torch.rand(3, 5, 1, 1, 1, generator=stream(1)) - 1)
    for image, result, b, c, s in zip(x, found, *factors[..., 0, 0, 0].tolist(), strict=True):
        y = (image * b).clamp(0, 1)
        grey = 0.299 * y[0] + 0.587 * y[1] + 0.114 * y[2]
        y = (c * y + (1 - c) * grey.mean()).clamp(0, 1)
        grey = 0.299 * y[0] + 0.587 * y[1] + 0.114 * y[2]
        torch.testing.assert_close(result, (s * y + (1 - s) * grey).clamp(0, 1))
    assert torch.equal(recoloured(x, 0.0, stream(1)), x)


def test_large_images_are_recoloured_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(5, 3, 30, 30, generator=stream(0))
    together = recoloured(x, 0.4, stream(1))
    monkeypatch.setattr("espalier.tasks.augmentation.colour._CHUNK_PIXELS", 2 * 30 * 30)
    assert torch.equal(recoloured(x, 0.4, stream(1)), together)
    assert recoloured(x[:, :1], 0.4, stream(1)).shape == (5, 1, 30, 30)


# ---------------------------------------------------------------- mixing


def test_mixup_and_cutmix_by_hand() -> None:
    x, y = torch.rand(4, 3, 6, 8, generator=stream(0)), shares(torch.arange(4), 4)
    partner = torch.tensor([1, 2, 3, 0])
    images, targets = mixed(x, y, 0.3, partner)
    torch.testing.assert_close(images[0], 0.3 * x[0] + 0.7 * x[1])
    torch.testing.assert_close(targets[0], torch.tensor([0.3, 0.7, 0.0, 0.0]))
    images, targets = pasted(x, y, (1, 2, 3, 4), partner)
    assert torch.equal(images[2, :, 1:4, 2:6], x[3, :, 1:4, 2:6]) and torch.equal(images[2, :, 4:], x[2, :, 4:])
    torch.testing.assert_close(targets[2], torch.tensor([0.0, 0.0, 0.75, 0.25]))  # 12 of 48 pixels


@given(lam=st.floats(0, 1), row=st.floats(0, 0.999), column=st.floats(0, 0.999))
def test_cut_boxes_lie_inside_and_are_no_larger_than_asked(lam: float, row: float, column: float) -> None:
    top, left, h, w = cut_box(lam, row, column, (32, 24))
    assert 0 <= top and 0 <= left and h >= 0 and w >= 0 and top + h <= 32 and left + w <= 24
    assert h * w <= (1 - lam) * 32 * 24 + 1e-6


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_shares_are_what_the_loss_takes(alphas: tuple[float, float]) -> None:
    labels = torch.arange(16) % 5
    x = functional.one_hot(labels, 5).float()[:, :, None, None].expand(-1, -1, 20, 20)  # images show their class
    found = [mix(x, shares(labels, 5), alphas, stream(seed)) for seed in range(40)]
    for images, targets in found:
        torch.testing.assert_close(images.mean((2, 3)), targets)
    logits = torch.randn(16, 5, generator=stream(0))
    _, targets = found[0]
    by_hand = -(targets * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(classification_loss(logits, targets), by_hand)
    pastes = [bool(images.unique().numel() <= 2) for images, _ in found]  # a paste invents no new value
    assert any(pastes) == (alphas[1] > 0) and all(pastes) == (alphas[0] == 0)


@pytest.mark.parametrize(
    "wrong", [{"pad": -1}, {"colour": 1.5}, {"mixup": -0.1}, {"crop_area": (0.5, 0.2)}, {"crop_area": (0.0, 1.0)}]
)
def test_wrong_strengths(wrong: dict) -> None:
    with pytest.raises(EspalierError):
        Augment(**wrong)


def test_what_cannot_be_mixed() -> None:
    with pytest.raises(EspalierError, match="every pixel has its own"):
        Loader(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4), augment=Augment(mixup=1.0), classes=3)
    with pytest.raises(EspalierError, match="how many classes"):
        Loader(torch.zeros(2, 3, 4, 4), torch.zeros(2), augment=Augment(mixup=1.0))


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "library"])
def test_a_still_video_is_augmented_as_its_image_is(name: str) -> None:
    still = loader(EVERYTHING[name])
    video = dataclasses.replace(still, images=still.images[:][:, :, None].repeat(1, 1, 4, 1, 1))
    for (x, y), (clips, targets) in zip(still, video, strict=True):
        assert clips.shape == (len(x), 3, 4, 12, 10)
        assert torch.equal(targets, y)
        assert torch.allclose(clips, x[:, :, None].expand_as(clips), atol=1e-6)
