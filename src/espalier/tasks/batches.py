"""What every loader is: batches with a length, in an order and an augmentation that (seed, epoch) decide."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor
from torch.utils.data import DataLoader

from ..core import FileError
from .datasets import loader_of

_B = TypeVar("_B", bound="Batches")


@runtime_checkable
class Batches(Protocol):
    """``(inputs, targets)`` batches.

    Attributes:
        epoch: the number of the next pass. A whole pass adds one; set it to go on where another run stopped.
    """

    epoch: int

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]: ...


@dataclass(eq=False)
class Listed:
    """The same batches in the same order in every epoch: a list, or another collection of the user's own."""

    batches: Iterable[tuple[Any, Tensor]] = field(repr=False)
    epoch: int = 0

    def __len__(self) -> int:
        """Return the number of batches."""
        assert isinstance(self.batches, Sized)
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Go through them once."""
        yield from self.batches
        self.epoch += 1


def as_batches(batches: Any) -> Batches:
    """Return ``batches`` with an epoch: as they are, or a collection or a DataLoader wrapped.

    Raises:
        FileError: they cannot be counted and iterated over again and again.
    """
    if isinstance(batches, Batches):
        return batches
    if isinstance(batches, DataLoader):
        return loader_of(batches, batches.batch_size or 1, 0, shuffle=False)
    if isinstance(batches, Iterator) or not (isinstance(batches, Sized) and isinstance(batches, Iterable)):
        raise FileError(
            f"batches of type {type(batches).__name__} cannot be read once an epoch: give a list of (inputs, targets), "
            "a torch Dataset or DataLoader, or an object with __len__ and __iter__"
        )
    return Listed(batches)


def from_the_start(batches: _B) -> _B:
    """Return a copy that begins at epoch 0; the data itself is shared."""
    fresh = copy.copy(batches)
    fresh.epoch = 0
    return fresh


def shard(batches: Batches, rank: int, ranks: int) -> Batches:
    """Return the part of every batch that process ``rank`` of ``ranks`` reads.

    Raises:
        FileError: the batches cannot be divided.
    """
    if ranks == 1:
        return batches
    if not is_dataclass(batches) or not hasattr(batches, "ranks"):
        raise FileError(
            f"{type(batches).__name__} cannot be divided among processes: give a torch Dataset or tensors instead"
        )
    return replace(batches, rank=rank, ranks=ranks)  # type: ignore[type-var]
