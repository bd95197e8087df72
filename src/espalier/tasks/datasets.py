"""A user's own torch Dataset or DataLoader, in an order and with random numbers that (seed, epoch) decide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from ..core import FileError
from .randomness import seeded, seeded_globally
from .streaming import batches, check_ranks


@dataclass(eq=False)
class DatasetLoader:
    """Batches of a Dataset with a length.

    Attributes:
        dataset: gives (input, target) by index. What it draws from torch, numpy or Python follows from the seed, the
            epoch and the number of the batch, however many workers there are.
        batch_size: examples a batch over all ranks.
        shuffle: a new order every epoch; a last batch of a single example a rank is left out.
        seed: of the order and of the dataset's random numbers.
        epoch: the number of the next pass.
        collate: makes a batch of a list of examples.
        workers: processes that make batches ahead.
        drop_last: leave out a last batch that is smaller.
        rank, ranks: this loader yields every ``ranks``-th example of each batch, from number ``rank`` on.
    """

    dataset: Dataset = field(repr=False)
    batch_size: int = 128
    shuffle: bool = False
    seed: int = 0
    epoch: int = 0
    collate: Callable[[list[Any]], Any] = default_collate
    workers: int = 0
    drop_last: bool = False
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        """Refuse batches too small to be shared."""
        check_ranks(self._count, self.batch_size, self.ranks, training=self.shuffle)

    @property
    def _count(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Return the number of batches."""
        full, rest = divmod(self._count, self.batch_size)
        least = 2 * self.ranks if self.shuffle and self.batch_size > 1 else 1
        return full + (rest >= least and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Go through one epoch, in the order of ``epoch`` as it is now; its end adds one to ``epoch``."""
        epoch = self.epoch
        order = torch.arange(self._count)
        if self.shuffle:
            order = torch.randperm(self._count, generator=seeded(self.seed, epoch))
        parts = [part[self.rank :: self.ranks] for part in order.split(self.batch_size)[: len(self)]]
        yield from batches(self, [part for part in parts if len(part)], epoch, self.workers)
        self.epoch = epoch + 1

    def batch(self, indices: Tensor, epoch: int, number: int) -> tuple[Any, Tensor]:
        """Return the examples at ``indices`` as batch ``number`` of an epoch."""
        with seeded_globally(self.seed, epoch, number, self.rank):
            return self.collate([self.dataset[index] for index in indices.tolist()])


@dataclass(eq=False)
class ForeignLoader:
    """A DataLoader whose order is its own affair: a sampler of the user's, or a stream of unknown order.

    Random numbers that it and its dataset take from torch, numpy or Python follow from the seed and the epoch, and
    ``set_epoch`` of its sampler or dataset is called where there is one.
    """

    loader: DataLoader = field(repr=False)
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Go through one epoch; its end adds one to ``epoch``."""
        epoch = self.epoch
        for part in (self.loader.sampler, self.loader.batch_sampler, self.loader.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)  # type: ignore[union-attr]
        if self.loader.generator is not None:
            self.loader.generator.manual_seed(int(seeded(self.seed, epoch).initial_seed() % 2**63))
        with seeded_globally(self.seed, epoch):
            source = iter(self.loader)
        for number in range(len(self)):
            with seeded_globally(self.seed, epoch, number):
                batch = next(source, None)
            if batch is None:
                raise FileError(f"the data loader says that it has {len(self)} batches and ended after {number}")
            yield batch
        self.epoch = epoch + 1


def loader_of(
    data: Any, batch_size: int, seed: int, *, shuffle: bool, workers: int = 0
) -> DatasetLoader | ForeignLoader:
    """Return repeatable batches of a Dataset or DataLoader.

    A DataLoader keeps its batch size, collate function and workers; and its order too where it is neither shuffled nor
    sequential.

    Raises:
        FileError: it has no length, so that nobody can say what an epoch is.
    """
    if isinstance(data, DataLoader):
        return _of_loader(data, seed)
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise FileError(
            f"{type(data).__name__} has no length: give a Dataset with __len__ and __getitem__, or a DataLoader over a "
            "stream that has __len__"
        )
    return DatasetLoader(data, batch_size, shuffle, seed, workers=workers)


def _of_loader(loader: DataLoader, seed: int) -> DatasetLoader | ForeignLoader:
    plain = type(loader.batch_sampler) is BatchSampler and loader.batch_size is not None
    shuffled = type(loader.sampler) is RandomSampler and not loader.sampler.replacement
    whole = shuffled or type(loader.sampler) is SequentialSampler
    if not plain or not whole or _length(loader.sampler) != _length(loader.dataset):
        _length(loader)
        return ForeignLoader(loader, seed)
    return DatasetLoader(
        loader.dataset,
        loader.batch_size or 1,
        shuffled,
        seed,
        collate=loader.collate_fn,
        workers=loader.num_workers,
        drop_last=loader.drop_last,
    )


def _length(data: Any) -> int:
    try:
        return len(data)
    except TypeError as error:
        raise FileError(f"{type(data).__name__} has no length, so that no one knows where an epoch ends") from error
