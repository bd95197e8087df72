"""Moments: first and second moments of a group's activations, over samples, positions and readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .activations import activation_sums
from .passes import Batches, Seen

if TYPE_CHECKING:
    from ...graph import Graph


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over rows x, one a sample, position and reader.

    Attributes:
        count: of rows.
        sums: of x, (units,).
        products: of x x^T, (units, units).
    """

    count: Tensor
    sums: Tensor
    products: Tensor

    def covariance(self) -> Tensor:
        """Return that of x, (units, units)."""
        mean = self.sums / self.count
        return self.products / self.count - mean[:, None] * mean


def second_moments(model: nn.Module, graph: Graph, batches: Batches) -> dict[str, Moments]:
    """Return the moments of every group whose readers were seen.

    Raises:
        ModelError: as ``each_batch``, or a model that is not the one that was traced.
    """
    sums = activation_sums(model, graph, batches, _augmented, _together)
    return {name: Moments(one[-1, -1], one[-1, :-1], one[:-1, :-1]) for name, (one, *_) in sums.items()}


def _augmented(x: Tensor) -> Tensor:
    """Return the products of rows that end in a one, (units + 1, units + 1)."""
    rows = x.movedim(1, 0).flatten(1)
    rows = torch.cat([rows, torch.ones_like(rows[:1])])
    return (rows @ rows.T).double()


def _together(readings: list[Tensor], seen: Seen) -> list[Tensor]:
    return [torch.stack(readings).sum(0)]
