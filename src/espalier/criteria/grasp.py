"""GraSP: a unit is worth what its removal would take from the flow of gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .signals.curvature import Slope, twice_differentiable
from .signals.passes import Batches, Loss, times
from .signals.pooling import pooled
from .signals.slices import Scores, slot_parameters
from .signals.slot_means import slot_means

if TYPE_CHECKING:
    from ..graph import Graph


def grasp(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss,
    reduce: str = "sum",
    normalise: str = "none",
) -> Scores:
    """Score every unit by how much of the squared gradient norm goes with it, to first order.

        g        = dL/dW,    H = d2L/dW2                            (a batch)
        score[u] = reduce over slots s ( sum_j  W_s[u, j] * (H g)_s[u, j] )         the mean over samples

    Half the change of g^T g when W[u] goes to zero, with its sign turned: a negative score says that gradients would
    flow better without the unit.

    Source: Wang et al., Picking Winning Tickets before Training by Preserving Gradient Flow, ICLR 2020,
    arXiv:2002.07376, section 4. Recalled, not re-checked against the paper's text.
    Differs: (1) units instead of single weights; (2) the gradient norm of each batch, where the paper takes that of
    the whole sample: one pass is enough; (3) the loss as it is given, without a temperature.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples; twice differentiable.
        reduce, normalise: as in ``magnitude``.

    Raises:
        ModelError: as ``taylor``, or a loss that cannot be differentiated twice.
        UnknownNameError: an unknown reduction or normaliser.
    """
    with twice_differentiable():
        means = slot_means(model, graph, batches, loss, measure=_flow_lost)
    return pooled(graph, slot_parameters(model, graph), means, reduce=reduce, normalise=normalise)


def _flow_lost(value: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    slope = Slope(value, parameters)
    return times(parameters, slope.curve(slope.gradient))
