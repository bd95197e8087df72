"""Taylor: a unit is worth what the loss would change, to first order, if its weights were zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core import UnknownNameError
from .signals.passes import Batches, Loss, gradients, times
from .signals.pooling import pooled
from .signals.slices import Scores, slot_parameters
from .signals.slot_means import slot_means

if TYPE_CHECKING:
    from ..graph import Graph

# form: what is summed over a unit's weights, from the products w * g; the sum's absolute value is taken
_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit": lambda products: products,
    "element": torch.abs,
    "square": torch.square,
}


def taylor(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss,
    form: str = "unit",
    reduce: str = "sum",
    normalise: str = "none",
) -> Scores:
    """Score every unit by weight times gradient, from one backward pass a batch.

        P_s      = W_s * dL/dW_s                         (a batch, element by element)
        t[u, s]  = | sum_j P_s[u, j] |                   form "unit":    the whole slice goes to zero
                   sum_j | P_s[u, j] |                   form "element": no cancellation inside a slice
                   sum_j   P_s[u, j] ^ 2                 form "square":  the paper's squared form
        score[u] = normalise over u ( reduce over slots s ( mean over batches ( t[u, s] ) ) )    weighed by samples

    The model runs in eval mode and comes back as it was: mode, gradients, ``requires_grad``, buffers. In a group of
    processes every rank calls this with its part of each batch, and gradients are averaged over ranks before anything
    else is done with them; a loss that weighs parts by their sizes makes that the gradient of the whole batch.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771,
    section 3.1; first-order criterion of arXiv:1611.06440. Recalled, not re-checked against the papers' text.
    Differs: (1) every slot of the group counts, producers and readers alike; (2) eval mode, so that dropout does
    not blur the gradient and batch statistics do not move.

    Args:
        batches: pairs (inputs, targets); inputs are a tensor, a tuple (positional) or a dict (keywords), and move
            to the model's device.
        loss: ``loss(outputs, targets)`` -> a scalar tensor.
        form: "unit", "element" or "square".
        reduce, normalise: as in ``magnitude``.

    Raises:
        ModelError: no batches, a loss that is no finite scalar or does not depend on the model, or another model.
        UnknownNameError: an unknown form, reduction or normaliser.
    """
    if form not in _FORMS:
        raise UnknownNameError("form", form, _FORMS)
    products: dict[str, Tensor] = {}

    def measure(value: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return times(parameters, gradients(value, parameters), into=products)

    means = slot_means(model, graph, batches, loss, measure=measure, each=_FORMS[form], total=torch.abs)
    return pooled(graph, slot_parameters(model, graph), means, reduce=reduce, normalise=normalise)
