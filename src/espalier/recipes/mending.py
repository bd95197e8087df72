"""Recovery by the names that recipes use."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core import ModelError, Plan
from ..graph import trace
from ..recovery import least_squares, reestimate_batch_norm, rescale_statistics

if TYPE_CHECKING:
    from ..tasks import Task

_FITS = {"least_squares": least_squares, "statistics": rescale_statistics}


def mended(
    how: Iterable[str], networks: tuple[nn.Module, nn.Module], plan: Plan, task: Task, *, batches: int
) -> list[str]:
    """Mend the smaller of two networks in place, by each of ``how`` in turn; return what a user should know.

    Args:
        how: of ``steps.recover.Recovery``.
        networks: the one before ``plan`` and the one after it.
        plan: which units were kept.
        task: its training split gives the batches.
        batches: how many.
    """
    dense, small = networks
    notes: list[str] = []
    for name in how:
        data = first_batches(task, batches)
        try:
            if name == "batch_norm":
                reestimate_batch_norm(small, data)
            else:
                _FITS[name](dense, small, trace(dense, task.example()), plan, data)
        except ModelError as error:  # the network is as it was then, and training mends what this cannot
            notes.append(f"recovery by {name} was left out: {error}")
    return notes


def first_batches(task: Task, count: int) -> list[tuple[Any, Any]]:
    """Return the first training batches of epoch 0, the same ones every time."""
    epoch, task.train.epoch = task.train.epoch, 0
    try:
        return list(itertools.islice(task.train, count))
    finally:
        task.train.epoch = epoch
