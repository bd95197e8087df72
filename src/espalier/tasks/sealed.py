"""The test split under a seal: one reading a run, and what that reading saw, on record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..core import EspalierError
from .batches import Batches, from_the_start


class SplitError(EspalierError):
    """The test split was to be read a second time in one run."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One pass over the test split.

    Attributes:
        examples: how many were read.
        targets_sha256: of the bytes of all targets in their order: which split it was.
        metrics: ``{network: {metric: value in [0, 1]}}``.
    """

    examples: int
    targets_sha256: str
    metrics: Mapping[str, Mapping[str, float]]


@dataclass(eq=False)
class Sealed:
    """Batches that can be iterated once; choices that look at the test split twice are choices made on it.

    Attributes:
        reads: how often an iteration began: 0 or 1.
        readings: what ``Task.test_once`` found.
    """

    _batches: Batches = field(repr=False)
    reads: int = 0
    readings: tuple[Reading, ...] = ()
    epoch: int = 0  # never moves; every loader has one

    def __len__(self) -> int:
        """Return the number of batches; counting them reads nothing."""
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Break the seal.

        Raises:
            SplitError: it was broken before.
        """
        if self.reads:
            raise SplitError(
                "the test split was read already in this run, and it is read once, at the end: measure all networks in "
                "one pass with task.test_once({name: network, ...}), choose on task.validation, or begin a new run "
                "with task.new_run()"
            )
        self.reads += 1
        return iter(self._batches)

    def resealed(self) -> Sealed:
        """Return the same batches under a new seal."""
        return Sealed(from_the_start(self._batches))


class Fingerprint:
    """A digest of targets, batch by batch."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.examples = 0

    def add(self, targets: Tensor) -> None:
        """Take in one batch's targets."""
        self.examples += len(targets)
        self._digest.update(targets.detach().cpu().contiguous().numpy().tobytes())

    def hexdigest(self) -> str:
        """Return what all of them come to."""
        return self._digest.hexdigest()
