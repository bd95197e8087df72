"""Tasks: the test split is read once a run, and metrics are sums that do not depend on how data is batched."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import espalier as es
from espalier.core import KindError
from espalier.tasks import Data, Overlap, SegmentationLoss, SplitError, Task, load_task
from espalier.tasks.evaluation import count


def small_task(**options: object) -> Task:
    """Return a task of plain lists: class i is the unit vector i."""
    batches = [(torch.eye(4), torch.arange(4)), (torch.eye(4)[:1], torch.tensor([3]))]
    return Task("lists", batches, batches, batches, 4, (4,), **options)


class Counting(nn.Module):
    """Answers ``inputs`` and counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return x


# ---------------------------------------------------------------- the seal


def test_the_test_split_is_read_once() -> None:
    task = small_task()
    models = {"dense": Counting(), "small": nn.Sequential(nn.Linear(4, 4))}
    assert task.test_reads == 0
    found = task.test_once(models)
    assert found["dense"] == 4 / 5 and set(found) == set(models)
    assert models["dense"].asked == 2  # two batches, one pass
    assert task.test_reads == 1
    for again in (lambda: task.test_once(models), lambda: list(task.test), lambda: iter(task.test)):
        with pytest.raises(SplitError, match=r"read once, at the end.*new_run"):
            again()
    assert task.test_reads == 1
    (reading,) = task.test_readings
    targets = torch.tensor([0, 1, 2, 3, 3])
    assert reading.targets_sha256 == hashlib.sha256(targets.numpy().tobytes()).hexdigest()
    assert (reading.examples, reading.metrics["dense"]) == (5, {"accuracy": 4 / 5})


def test_a_reading_that_breaks_off_counts() -> None:
    task = small_task()
    next(iter(task.test))
    assert task.test_reads == 1
    with pytest.raises(SplitError):
        task.test_once({"model": Counting()})


def test_variants_of_a_task_share_the_seal_and_new_runs_do_not() -> None:
    task = es.load_task("digits", batch_size=500)
    list(task.train)
    variant = dataclasses.replace(task, name="other")
    fresh = task.new_run()
    list(variant.test)
    assert (task.test_reads, fresh.test_reads) == (1, 0)
    assert (task.train.epoch, fresh.train.epoch) == (1, 0)
    list(fresh.test)
    assert task.test_reads == 1
    assert len(task.test) == 1  # counting batches reads nothing


def test_processes_that_share_a_task_count_what_one_counts() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    task = es.load_task("digits", batch_size=50)
    parts = [task.new_run().sharded(rank, 3) for rank in range(3)]
    counts = [count({"": model}, part.validation, task.metrics)[""] for part in parts]
    assert task.metrics.values(sum(counts[1:], counts[0])) == task.measure(model, task.validation)
    others = iter(counts[1:])
    summed = parts[0].measure(model, parts[0].validation, sum_ranks=lambda own: own + sum(others))
    assert summed == task.measure(model, task.validation)
    list(parts[1].test)
    assert (parts[1].test_reads, task.test_reads) == (1, 0)
    with pytest.raises(es.EspalierError, match="cannot be divided among processes"):
        small_task().sharded(0, 2)


def test_evaluation_restores_every_modules_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model.train()
    model[1].eval()  # a frozen batch norm
    task = small_task()
    task.evaluate(model, task.validation)
    assert [module.training for module in model.modules()] == [True, True, False]


def test_only_whole_passes_count_as_epochs() -> None:
    task = es.load_task("digits", batch_size=500)
    first = next(iter(task.train))[1]
    assert task.train.epoch == 0
    assert torch.equal(next(iter(task.train))[1], first)
    listed = small_task()
    list(listed.train)
    assert listed.train.epoch == 1


def test_what_cannot_be_read_again_is_refused() -> None:
    with pytest.raises(es.EspalierError, match="cannot be read once an epoch"):
        Task("x", iter([]), [], [], 2, (1,))  # type: ignore[arg-type]


# ---------------------------------------------------------------- metrics


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 2**16),
    void=st.sampled_from([None, 3, 255]),
)
def test_overlap_is_that_of_all_pixels_at_once(sizes: list[int], seed: int, void: int | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    total_images, classes = sum(sizes), 3
    scores = torch.randn(total_images, classes, 4, 5, generator=generator)
    labels = torch.randint(0, classes, (total_images, 4, 5), generator=generator)
    if void is not None:
        labels[torch.rand(labels.shape, generator=generator) < 0.3] = void
    metrics = Overlap(classes, void)
    total = sum(metrics.count(x, y) for x, y in zip(scores.split(sizes), labels.split(sizes), strict=True))
    assert isinstance(total, torch.Tensor)
    counted = labels != void if void is not None else torch.ones_like(labels, dtype=torch.bool)
    truth, guess = labels[counted], scores.argmax(1)[counted]
    ious = [
        ((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum()
        for c in range(classes)
        if ((truth == c) | (guess == c)).any()
    ]
    values = metrics.values(total)
    assert values["mean_iou"] == pytest.approx(float(sum(ious) / len(ious)) if ious else 0.0)
    assert values["pixel_accuracy"] == pytest.approx(float((truth == guess).float().mean()) if len(truth) else 0.0)


def test_classes_that_do_not_occur_leave_the_mean_alone() -> None:
    scores = torch.eye(4)[torch.tensor([[[0, 1], [1, 1]]])].movedim(3, 1)  # predicts classes 0 and 1 of four
    found = Overlap(4).count(scores, torch.tensor([[[0, 0], [1, 1]]]))
    assert found[:2, :2].tolist() == [[1, 1], [0, 2]]  # rows are true
    assert Overlap(4).values(found) == {"mean_iou": pytest.approx((1 / 2 + 2 / 3) / 2), "pixel_accuracy": 3 / 4}
    assert Overlap(4).values(torch.zeros(4, 4, dtype=torch.long)) == {"mean_iou": 0.0, "pixel_accuracy": 0.0}


def test_void_pixels_have_no_gradient_and_coarse_scores_are_resized() -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[:, :, 2:] = 11
    SegmentationLoss(void=11)(scores, labels).backward()
    assert scores.grad is not None
    assert scores.grad[..., 2:].abs().max() == 0 and scores.grad[..., :2].abs().min() > 0
    coarse = {"out": torch.randn(2, 3, 2, 2)}
    assert SegmentationLoss(void=11)(coarse, labels).isfinite()
    assert int(Overlap(3, void=11).count(coarse, labels).sum()) == 16


def test_an_example_has_as_many_inputs_as_asked_for() -> None:
    x, y = torch.arange(10.0).view(10, 1).repeat(1, 3), torch.arange(10) % 2
    batches = DataLoader(TensorDataset(x, y), batch_size=4)
    own = load_task(Data(train=batches, validation=batches, test=batches, classes=2))
    assert own.example(3).tolist() == x[:3].tolist()
    assert own.example(9).tolist() == [*x[:4].tolist(), *x[:4].tolist(), *x[:1].tolist()]
    assert len(load_task("digits").example(2000)) == 2000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "examples a batch, at least 1, not 0"),
        ({"seed": -1}, "seed, at least 0, not -1"),
        ({"seed": "a"}, "seed, at least 0, not 'a'"),
        ({"seed": 1.5}, "seed"),
        ({"image_size": 0}, "image_size, at least 1, not 0"),
        ({"normalise": 3}, "tasks.Normalise as normalise, not 3"),
        ({"augment": "flip"}, "tasks.Augment as augment, not 'flip'"),
        ({"storage": 5}, "tasks.Storage as storage, not 5"),
    ],
)
def test_arguments_of_another_kind_are_refused_at_the_door(wrong: dict, message: str) -> None:
    with pytest.raises(KindError, match=message):
        load_task("digits", **wrong)
