"""Data of the user's own: from a file, in any of the forms that PyTorch's users have, and read alike every time."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, TensorDataset

from espalier.core import FileError
from espalier.tasks import Augment, Data, Storage, Task, load_task
from espalier.tasks.datasets import DatasetLoader

GENERATOR = np.random.default_rng(0)


def tensors(count: int) -> tuple[Tensor, Tensor]:
    """Return inputs that are their own numbers."""
    return torch.arange(count).float().view(-1, 1).repeat(1, 3), torch.arange(count) % 4


class Noisy(Dataset):
    """Draws from torch, numpy and Python for every example, as users' transforms do."""

    def __init__(self, count: int, classes: list[str] | None = None) -> None:
        self.count = count
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([index, torch.rand(()), np.random.rand(), random.random()]), index % 3


def indices(batches: Any) -> list[int]:
    return [int(value) for x, _ in batches for value in x[:, 0]]


# ---------------------------------------------------------------- forms


FORMS: dict[str, Callable[[int], Any]] = {
    "tensors": tensors,
    "arrays": lambda count: tuple(part.numpy() for part in tensors(count)),
    "TensorDataset": lambda count: TensorDataset(*tensors(count)),
    "Dataset": lambda count: Noisy(count, ["a", "b", "c"]),
    "DataLoader": lambda count: DataLoader(Noisy(count, ["a", "b", "c"]), batch_size=8, shuffle=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_a_task(form: str) -> None:
    make = FORMS[form]
    task = load_task(Data(train=make(40), validation=make(12), test=make(8)), batch_size=8, seed=1)
    first, second = indices(task.train), indices(task.train)
    assert sorted(first) == sorted(second) == list(range(40)) and first != second
    assert task.classes == (4 if form in ("tensors", "arrays", "TensorDataset") else 3)
    assert task.input_shape == ((3,) if task.classes == 4 else (4,))
    again = load_task(Data(train=make(40), validation=make(12), test=make(8)), batch_size=8, seed=1)
    again.train.epoch = 1
    assert indices(again.train) == second
    assert task.example(2).shape == (2, *task.input_shape)
    assert task.test_reads == 0


@pytest.mark.parametrize("form", ["tensors", "TensorDataset", "Dataset"])
def test_validation_is_set_aside_by_the_rule(form: str) -> None:
    task = load_task(Data(train=FORMS[form](40), test=FORMS[form](8)))
    order = np.random.default_rng(0).permutation(40).tolist()
    assert indices(task.validation) == order[36:]
    assert sorted(indices(task.train)) == sorted(order[:36])


def test_a_loader_keeps_what_is_the_users() -> None:
    def collate(rows: list[Any]) -> tuple[Tensor, Tensor]:
        return torch.stack([x for x, _ in rows]) + 100, torch.tensor([y for _, y in rows])

    given = DataLoader(Noisy(21), batch_size=8, shuffle=True, collate_fn=collate, drop_last=True)
    lists = [(torch.zeros(2, 4), torch.zeros(2))]
    task = load_task(Data(train=given, validation=lists, test=lists, classes=3), batch_size=99)
    assert [len(y) for _, y in task.train] == [8, 8]
    assert min(indices(task.train)) >= 100


@pytest.mark.parametrize("workers", [0, 2])
def test_a_datasets_own_random_numbers_follow_from_seed_and_epoch(workers: int) -> None:
    def passes(seed: int, epoch: int) -> list[Tensor]:
        storage = Storage(workers=workers)
        data = Data(train=Noisy(20, ["a", "b", "c"]), test=Noisy(5))
        task = load_task(data, batch_size=6, seed=seed, storage=storage)
        task.train.epoch = epoch
        return [x for x, _ in task.train]

    torch.manual_seed(1)
    state = torch.get_rng_state(), random.getstate()
    expected = passes(0, 3)
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1] or workers
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(expected, passes(0, 3), strict=True))
    plain = load_task(Data(train=Noisy(20, ["a", "b", "c"]), test=Noisy(5)), batch_size=6).train
    plain.epoch = 3
    assert all(torch.equal(a, b) for a, (b, _) in zip(expected, plain, strict=True))  # with workers or without
    assert not torch.equal(expected[0], passes(0, 4)[0]) and not torch.equal(expected[0], passes(1, 3)[0])


def test_a_datasets_random_numbers_differ_from_batch_to_batch_and_epoch_to_epoch() -> None:
    plain = DatasetLoader(Noisy(12), batch_size=6)  # in order: only the dataset's own numbers can differ
    drawn = [x[:, 1:] for _ in range(2) for x, _ in plain]
    others = {"seed": 1}, {"rank": 0, "ranks": 2}, {"rank": 1, "ranks": 2}
    drawn += [next(iter(dataclasses.replace(plain, epoch=0, **other)))[0][:, 1:] for other in others]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))


class EveryOther(Sampler[int]):
    """A sampler of the user's own, with an epoch of its own."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[int]:
        return iter([(2 * i + self.epoch) % 20 for i in torch.randperm(10).tolist()])


def test_a_sampler_of_the_users_own_is_kept_and_repeats_itself() -> None:
    def train(epoch: int) -> list[Tensor]:
        given = DataLoader(Noisy(20), batch_size=4, sampler=EveryOther())
        task = load_task(Data(train=given, validation=given, test=given, classes=3))
        task.train.epoch = epoch
        found = [x for x, _ in task.train]
        assert task.train.epoch == epoch + 1
        return found

    torch.manual_seed(1)
    even, odd = train(0), train(1)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(odd, train(1), strict=True))
    assert {int(v) % 2 for x in even for v in x[:, 0]} == {0} and {int(v) % 2 for x in odd for v in x[:, 0]} == {1}


def test_a_task_made_by_hand_takes_loaders_as_they_are() -> None:
    given = DataLoader(Noisy(20), batch_size=6, shuffle=True)
    task = Task("mine", given, given, given, classes=3, input_shape=(4,))
    torch.manual_seed(1)
    first, second = indices(task.train), indices(task.train)
    fresh = task.new_run()
    torch.manual_seed(2)
    assert indices(fresh.train) == first != second and task.train.epoch == 2


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(torch.rand(2), i % 2) for i in range(10)])


def test_streams_need_a_length() -> None:
    class Counted(Stream):
        def __len__(self) -> int:
            return 10

    lists = [(torch.zeros(2, 2), torch.zeros(2))]
    given = DataLoader(Counted(), batch_size=4)
    task = load_task(Data(train=given, validation=lists, test=lists, classes=2))
    torch.manual_seed(1)
    first = [x for x, _ in task.train]
    task.train.epoch = 0
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, [x for x, _ in task.train], strict=True))
    for endless in (Stream(), DataLoader(Stream(), batch_size=4)):
        with pytest.raises(FileError, match="has no length"):
            load_task(Data(train=endless, validation=lists, test=lists, classes=2))


# ---------------------------------------------------------------- what they are about


def test_images_of_bytes_are_augmented_and_label_maps_are_seen() -> None:
    images, maps = torch.rand(20, 3, 8, 8), torch.randint(0, 3, (20, 8, 8))
    maps[0, 0, 0] = 9
    data = Data(train=(images, maps), test=(images, maps), void=9, augment=Augment(flip=True, pad=1))
    task = load_task(data)
    assert (task.kind, task.metric, task.classes, task.input_shape) == ("segmentation", "mean_iou", 3, (3, 8, 8))
    x, y = next(iter(task.train))
    assert y.shape == (18, 8, 8) and (y == 9).sum() > 1  # what a shift brought in
    mixing = Data(train=(images, torch.arange(20) % 4), test=(images, torch.arange(20)), augment=Augment(mixup=0.2))
    assert next(iter(load_task(mixing).train))[1].shape == (18, 4)


def test_a_loss_and_metrics_of_the_users_own() -> None:
    class Lengths:
        names = ("short",)

        def count(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return torch.tensor([int((outputs < 1).sum()), outputs.numel()])

        def values(self, counts: Tensor) -> dict[str, float]:
            return {"short": float(counts[0] / counts[1])}

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().mean()

    task = load_task(Data(train=tensors(20), test=tensors(5), loss=loss, metrics=Lengths()))
    assert task.metric == "short" and task.loss is loss
    assert task.evaluate(torch.nn.Identity(), [(torch.tensor([[0.0], [2.0]]), torch.zeros(2))]) == 0.5


def test_classes_that_nobody_tells() -> None:
    with pytest.raises(FileError, match=r"does not say how many classes.*classes="):
        load_task(Data(train=Noisy(20), test=Noisy(5)))
    with pytest.raises(FileError, match="cannot be divided"):
        load_task(Data(train=DataLoader(Noisy(20)), test=Noisy(5)))
    with pytest.raises(FileError, match="3 inputs and 4 targets"):
        load_task(Data(train=(torch.zeros(3, 1), torch.zeros(4)), test=tensors(4)))
