"""Neural complexity: a unit is worth what it shares with each other unit beyond what the rest already says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.moments import Moments, second_moments
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def neural_complexity(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, ridge: float = 1e-3
) -> Scores:
    """Score every unit by its contribution to the complexity of its group's activations, in nats.

        C(X)     = H(X) - sum over units i of H(x_i | the others)
        score[u] = C(X) - C(X without u)  =  sum over units i of  I( x_u ; x_i | the others )
                 = - 1/2 sum over i != u of  log( 1 - P[u, i]^2 / ( P[u, u] P[i, i] ) ),     P = covariance^-1

    X are the group's activations over samples, positions and readers, taken to be Gaussian. A unit that says nothing
    of any other, or only what the rest says too, is worth nothing.

    Source: Tononi, Sporns and Edelman, A measure for brain complexity, PNAS 91, 1994, in the form of interaction
    complexity; as a heuristic Zhang and Qiao, A Node Pruning Algorithm for Feedforward Neural Network Based on Neural
    Complexity, ICICIP 2010. Recalled, not re-checked against the papers' texts.
    Differs: (1) interaction complexity, which has a closed form, where the papers average over all subsets; (2) the
    ridge.

    Memory: units^2 numbers a group.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        ridge: added to the covariance's diagonal, as a ratio of its mean.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    moments = second_moments(model, graph, batches)
    return completed(model, graph, {name: _contributions(one, ridge) for name, one in moments.items()})


def _contributions(moments: Moments, ridge: float) -> Tensor:
    covariance = moments.covariance()
    typical = covariance.diagonal().mean()
    if not bool(typical > 0) or not bool(covariance.isfinite().all()):  # what is not finite is found out later
        return covariance.sum(1) * 0
    damped = covariance / typical + ridge * torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)
    precision = torch.linalg.inv(damped)
    scale = precision.diagonal().rsqrt()
    partial = (precision * scale[:, None] * scale).fill_diagonal_(0)
    return -torch.log1p(-partial.square().clamp(max=1 - 1e-12)).sum(1) / 2
