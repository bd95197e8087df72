"""SNIP: a unit is worth how sensitive the loss is to its connections, on all the data at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.passes import Batches, Loss, each_loss, gradients, samples_of_all, times, untouched
from .signals.pooling import pooled
from .signals.slices import Scores, fold, slot_parameters, widened

if TYPE_CHECKING:
    from ..graph import Graph


def snip(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss,
    reduce: str = "sum",
    normalise: str = "none",
) -> Scores:
    """Score every unit by its share of the network's connection sensitivity.

        g        = gradient of the loss over all samples
        score[u] = reduce over slots s ( sum_j | W_s[u, j] * g_s[u, j] | )  /  sum over all weights | W * g |

    Gradients add up over batches before any absolute value, unlike ``taylor``'s: splitting a batch changes nothing.

    Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019,
    arXiv:1810.02340, section 4.1. Recalled, not re-checked against the paper's text.
    Differs: (1) units instead of single weights; (2) any network, trained or not.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples.
        reduce, normalise: as in ``magnitude``.

    Raises:
        ModelError: as ``taylor``.
        UnknownNameError: an unknown reduction or normaliser.
    """
    tensors = slot_parameters(model, graph)
    sums: dict[str, Tensor] = {}
    samples = 0
    with untouched(model, tensors) as parameters:
        for seen, value in each_loss(model, batches, loss):
            everyone = samples_of_all(seen)
            for name, gradient in gradients(value, parameters).items():
                if name in sums:
                    sums[name].add_(widened(gradient), alpha=everyone)
                else:
                    sums[name] = widened(gradient) * everyone
            samples += everyone
        products = times(parameters, {name: gradient / samples for name, gradient in sums.items()})
    whole = float(sum(float(one.abs().sum(dtype=torch.float64)) for one in products.values()))
    measured = fold(graph, {name: one / (whole or 1.0) for name, one in products.items()}, torch.abs)
    return pooled(graph, tensors, measured, reduce=reduce, normalise=normalise)
