"""One epoch of a loader, in this process or read ahead by worker processes; the batches are the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from espalier.core import EspalierError


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
    if not workers:
        for number, indices in enumerate(order):
            yield loader.batch(indices, epoch, number)
        return
    ahead = DataLoader(
        _Numbered(loader, order, epoch),
        batch_size=None,
        num_workers=min(workers, len(order)),
        pin_memory=torch.cuda.is_available(),
    )
    for batch in ahead:
        if isinstance(batch, EspalierError):
            raise batch
        yield batch


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Numbered(Dataset):
    """Batches by number. An expected error is handed over as it is, without a worker's traceback."""

    def __init__(self, loader: Indexed, order: list[Tensor], epoch: int) -> None:
        self._loader, self._order, self._epoch = loader, order, epoch

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Any:
        try:
            return self._loader.batch(self._order[number], self._epoch, number)
        except EspalierError as error:
            return error
