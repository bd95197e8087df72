"""Recovery by the names that recipes use."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from ..core import EspalierError, Plan

if TYPE_CHECKING:
    from .work import Work


def mended(how: Iterable[str], work: Work, networks: tuple[nn.Module, nn.Module], plan: Plan, batches: int) -> None:
    """Mend the smaller of two networks in place, by each of ``how`` in turn.

    Args:
        how: of ``steps.recover.Recovery``.
        work: the run.
        networks: the one before ``plan`` and the one after it.
        plan: which units were kept.
        batches: of the training split, to mend from.
    """
    for name in how:
        raise EspalierError(f"recovery by {name!r} is not there yet")


def some_batches(task: Any, count: int) -> list[tuple[Any, Any]]:
    """Return the first ``count`` training batches of epoch 0, the same in every run."""
    epoch, task.train.epoch = task.train.epoch, 0
    try:
        return list(itertools.islice(task.train, count))
    finally:
        task.train.epoch = epoch
