"""Karnin's sensitivity: a unit is worth what its weights earned on a stretch of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.passes import Batches, Loss, each_loss, gradients, untouched
from .signals.pooling import pooled
from .signals.slices import Scores, fold, slot_parameters, widened

if TYPE_CHECKING:
    from ..graph import Graph


def karnin(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss,
    lr: float = 1e-3,
    reduce: str = "sum",
) -> Scores:
    """Score every unit by the estimated rise of the loss if its weights were zero, from a few steps of descent.

        W(0)     = the weights;   W(n + 1) = W(n) - lr * g(n),   one step a batch, N batches;   the weights come back
        S        = sum over n ( lr * g(n)^2 ) * W(N) / (W(N) - W(0))                            weight by weight
        score[u] = reduce over slots s ( sum_j S_s[u, j] )

    The slope of the loss between W(0) and W(N) is taken to hold down to zero. With one batch S = - g * W: first-order
    ``taylor`` with its sign.

    Source: Karnin, A Simple Procedure for Pruning Back-Propagation Trained Neural Networks, IEEE Transactions on
    Neural Networks 1(2), 1990. Recalled, not re-checked against the paper's text.
    Differs: (1) the stretch of training starts from the network as it is, where the paper records the whole training
    from its first weights; (2) the sum over a unit's weights, which the paper ranks one by one; (3) eval mode.

    Args:
        batches: as in ``taylor``; their order counts.
        loss: ``loss(outputs, targets)``.
        lr: of plain gradient descent.
        reduce: as in ``magnitude``.

    Raises:
        ModelError: as ``taylor``.
        UnknownNameError: an unknown reduction.
    """
    tensors = slot_parameters(model, graph)
    earned: dict[str, Tensor] = {name: torch.zeros_like(widened(one)) for name, one in tensors.items()}
    start = {name: one.clone() for name, one in tensors.items()}
    with untouched(model, tensors) as parameters:
        try:
            for _, value in each_loss(model, batches, loss):
                found = gradients(value, parameters)
                with torch.no_grad():
                    for name, p in parameters.items():
                        before = p.detach().clone()
                        p -= lr * found[name]
                        earned[name] -= widened(found[name]) * widened(p.detach() - before)
            sensitivity = {name: _slope(earned[name], start[name], p.detach()) for name, p in parameters.items()}
        finally:
            with torch.no_grad():
                for name, p in parameters.items():
                    p.copy_(start[name])
    return pooled(graph, tensors, fold(graph, sensitivity, lambda one: one), reduce=reduce, normalise="none")


def _slope(earned: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return what was earned, over the way that was made, times the way to zero; nothing where none was made."""
    way = widened(end) - widened(start)
    return torch.where(way == 0, torch.zeros_like(earned), earned * widened(end) / torch.where(way == 0, 1.0, way))
