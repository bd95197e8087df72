"""Taylor to second order: a unit is worth what the loss would change, curvature included, if its weights were zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.curvature import Slope, twice_differentiable
from .signals.passes import Batches, Loss, times
from .signals.pooling import pooled
from .signals.slices import Scores, slot_parameters
from .signals.slot_means import slot_means

if TYPE_CHECKING:
    from ..graph import Graph


def taylor_second(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss,
    reduce: str = "sum",
    normalise: str = "none",
) -> Scores:
    """Score every unit by the gradient and one product with the Hessian.

        t[u, s]  = | sum_j  W_s[u, j] * ( g_s[u, j] - 1/2 (H W)_s[u, j] ) |         (a batch)
        score[u] = normalise over u ( reduce over slots s ( mean over batches ( t[u, s] ) ) )

    H W is the Hessian times all weights that groups own, so that one product serves every unit.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771,
    section 3.1, the second-order criterion. Recalled, not re-checked against the paper's text.
    Differs: (1) the absolute value, where the paper squares; (2) every slot of the group counts; (3) frozen weights
    are no part of W.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, twice differentiable.
        reduce, normalise: as in ``magnitude``.

    Raises:
        ModelError: as ``taylor``, or a loss that cannot be differentiated twice.
        UnknownNameError: an unknown reduction or normaliser.
    """
    with twice_differentiable():
        means = slot_means(model, graph, batches, loss, measure=_change, total=torch.abs)
    return pooled(graph, slot_parameters(model, graph), means, reduce=reduce, normalise=normalise)


def _change(value: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    slope = Slope(value, parameters)
    curved = slope.curve({name: p.detach() for name, p in parameters.items()})
    return times(parameters, {name: gradient - curved[name] / 2 for name, gradient in slope.gradient.items()})
