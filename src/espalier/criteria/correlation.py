"""Correlation redundancy: a unit is worth what no other unit's activation follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.moments import second_moments
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def correlation_redundancy(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by how little its activation correlates with that of the unit most like it.

        score[u] = 1 - max over v != u of | correlation( x[u], x[v] ) |                              in [0, 1]

    x are activations over samples, positions and readers. Of two units that follow each other both score low: a plan
    that takes one should be scored again. A unit that never changes scores 0: the next bias can do its work.

    Source: Babaeizadeh, Smaragdis and Campbell, NoiseOut: A Simple Way to Prune Neural Networks, arXiv:1611.06211,
    section 2. Recalled, not re-checked against the paper's text.
    Differs: (1) a score for every unit, where the paper merges the most correlated pair and starts again.

    Memory: units^2 numbers a group.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    moments = second_moments(model, graph, batches)
    return completed(
        model, graph, {name: _unlike(one.covariance()) for name, one in moments.items() if len(one.sums) > 1}
    )


def _unlike(covariance: Tensor) -> Tensor:
    variance = covariance.diagonal().clamp_min(0)
    still = variance <= variance.amax() * 1e-12
    scale = torch.where(still, 1.0, variance).rsqrt()
    nearest = (covariance * scale[:, None] * scale).abs().fill_diagonal_(0).amax(1)
    return torch.where(still, 0.0, (1 - nearest).clamp_min(0)) + 0 * variance
