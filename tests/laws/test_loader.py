"""Loaders: orders that repeat, augmentation that only moves, and a metric that counts examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from espalier.core import ModelError
from espalier.tasks import Augment, Loader, Normalise, accuracy, logits

AS_IS = Normalise((0.0,), (1.0,))


def index_loader(count: int, **options: Any) -> Loader:
    """Return a loader whose images are their own indices."""
    return Loader(torch.arange(count).float().view(-1, 1, 1, 1), torch.arange(count), AS_IS, **options)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 12), shuffle=st.booleans())
def test_an_epoch_is_every_image_once(count: int, batch_size: int, shuffle: bool) -> None:
    loader = index_loader(count, batch_size=batch_size, shuffle=shuffle)
    batches = list(loader)
    seen = [int(y) for _, labels in batches for y in labels]
    assert len(batches) == len(loader)
    assert all(torch.equal(x.flatten().long(), y) for x, y in batches)
    assert len(set(seen)) == len(seen)
    left_out = int(shuffle and batch_size > 1 and count % batch_size == 1)  # a batch of one, made by no one's choice
    assert len(seen) == count - left_out
    assert shuffle or seen == list(range(count))


def test_order_follows_seed_and_epoch() -> None:
    loader = index_loader(50, batch_size=8, shuffle=True, seed=3)
    first, second = ([y.tolist() for _, y in loader] for _ in range(2))
    assert first != second
    again = index_loader(50, batch_size=8, shuffle=True, seed=3, epoch=1)
    assert [y.tolist() for _, y in again] == second
    assert [y.tolist() for _, y in index_loader(50, batch_size=8, shuffle=True, seed=4)] != first


def test_normalise() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(1, 2, 1, 1)
    assert Normalise((0.5, 0.5), (0.5, 0.25))(images).flatten().tolist() == [-1.0, 2.0]


# ---------------------------------------------------------------- augmentation


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_augmentation_is_a_mirrored_shift(flip: bool, pad: int) -> None:
    images = torch.randint(1, 256, (64, 3, 6, 5), generator=stream(0), dtype=torch.uint8)
    result, labels = Augment(flip=flip, pad=pad).move(images, torch.arange(64), 9, stream(1))
    assert torch.equal(labels, torch.arange(64))
    places = set()
    for image, moved in zip(images, result, strict=True):
        found = {
            (mirror, top, left)
            for mirror in range(1 + flip)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            if torch.equal(crop(image.flip(2) if mirror else image, pad, top, left), moved)
        }
        assert len(found) == 1
        places |= found
    assert len(places) >= 0.6 * (1 + flip) * (2 * pad + 1) ** 2  # 64 draws reach most of them


def test_label_maps_move_with_their_images() -> None:
    maps = torch.randint(0, 5, (32, 6, 5), generator=stream(0))
    images, moved = Augment(flip=True, pad=2).move(maps[:, None].float() + 1, maps, 11, stream(1))
    assert (moved == 11).any() and not torch.equal(moved, maps)
    assert torch.equal(images[:, 0], torch.where(moved == 11, 0, moved + 1).float())


def crop(image: torch.Tensor, pad: int, top: int, left: int) -> torch.Tensor:
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=image.dtype)
    padded[:, pad : pad + height, pad : pad + width] = image
    return padded[:, top : top + height, left : left + width]


# ---------------------------------------------------------------- metric


def test_logits_are_found() -> None:
    found = torch.ones(2, 3)

    class Output:
        logits = found

    for outputs in (found, Output(), {"logits": found}, {"out": found, "aux": None}, (found, None), [found]):
        assert logits(outputs) is found
    for outputs in (None, {}, (), {"loss": found}):
        with pytest.raises(ModelError, match="no logits"):
            logits(outputs)


def test_accuracy_counts_examples_not_batches() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9))  # right only in eval mode, where dropout does nothing
    net.train()
    batches = [(torch.eye(4), torch.tensor([0, 1, 2, 3])), (torch.eye(4)[:1], torch.tensor([3]))]
    assert accuracy(net, batches) == 4 / 5
    assert net.training
