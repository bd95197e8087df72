"""Skeletonization: a unit is worth by how much the loss rises as its attention fades."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .signals.fallback import completed
from .signals.gate_gradients import coupled, mean_over_samples
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def skeletonization(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss) -> Scores:
    """Score every unit by its relevance: the loss without it less the loss with it, to first order.

        score[u] = - d loss / d gate[u]  at gate = 1,   the mean over samples

    The sign counts: a unit without which the loss would fall is worth less than nothing.

    Source: Mozer and Smolensky, Skeletonization: A Technique for Trimming the Fat from a Network via Relevance
    Assessment, NeurIPS 1988, section 2. Recalled, not re-checked against the paper's text.
    Differs: (1) the gradient of the loss that is given, where the paper takes the linear error sum |target - output|,
    whose gradient does not vanish at the optimum; (2) the plain mean over batches, where the paper's fades.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples.

    Raises:
        ModelError: as ``taylor``.
    """
    return completed(model, graph, mean_over_samples(model, graph, batches, loss, lambda parts: -coupled(parts).sum(0)))
