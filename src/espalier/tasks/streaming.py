"""One epoch of a loader, in this process or read ahead by worker processes; the batches are the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import current_process
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core import EspalierError, FileError


class Indexed(Protocol):
    """A loader whose every batch can be made on its own."""

    def batch(self, indices: Tensor, epoch: int, number: int) -> tuple[Any, Tensor]: ...


def batches(loader: Indexed, order: list[Tensor], epoch: int, workers: int) -> Iterator[tuple[Any, Tensor]]:
    """Yield the batches of one epoch.

    Args:
        loader: makes them.
        order: the indices of each.
        epoch: its number.
        workers: processes that work ahead; 0 makes each batch when it is asked for.
    """
    return mapped(_Epoch(loader, order, epoch), len(order), workers)


def mapped(function: Callable[[int], Any], count: int, workers: int) -> Iterator[Any]:
    """Yield ``function(0)``, ``function(1)``, ... in this order, made ahead by ``workers`` processes.

    Raises:
        EspalierError: what the function raised, as it is, without a worker's traceback.
    """
    if not workers or current_process().daemon:  # such a process may have no children
        yield from map(function, range(count))
        return
    ahead = DataLoader(
        _Numbered(function, count),
        batch_size=None,
        num_workers=min(workers, count),
        pin_memory=torch.cuda.is_available(),
    )
    for made in ahead:
        if isinstance(made, EspalierError):
            raise made
        yield made


def check_ranks(examples: int, batch_size: int, ranks: int, *, training: bool) -> None:
    """See that no process is left without a part: the others would wait for its sums.

    Args:
        examples: of the split.
        batch_size: examples a batch over all processes.
        ranks: processes.
        training: batch norm needs two examples.

    Raises:
        FileError: a process would have none.
    """
    least = 2 * ranks if training else ranks
    if ranks > 1 and batch_size < least:
        raise FileError(f"batch_size={batch_size} is too small for {ranks} processes: it must be at least {least}")
    if ranks > 1 and examples < least:
        raise FileError(f"{examples} examples are too few for {ranks} processes: there must be at least {least}")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class _Epoch:
    """The batches of one epoch by number."""

    loader: Indexed
    order: list[Tensor]
    epoch: int

    def __call__(self, number: int) -> tuple[Any, Tensor]:
        return self.loader.batch(self.order[number], self.epoch, number)


class _Numbered(Dataset):
    """What a function makes of each number, or its expected error."""

    def __init__(self, function: Callable[[int], Any], count: int) -> None:
        self._function, self._count = function, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        try:
            return self._function(number)
        except EspalierError as error:
            return error
