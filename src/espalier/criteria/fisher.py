"""Fisher: a unit is worth the second-order change of the loss without it, the Fisher information for the Hessian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .signals.fallback import completed
from .signals.gate_gradients import coupled, mean_over_samples
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def fisher(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss) -> Scores:
    """Score every unit by its readers' empirical Fisher information, each reader for itself.

        score[u] = 1/2 mean over samples n ( sum over readers r ( G_r[n, u] ^ 2 ) )

    G_r is the gradient of the gate at one reader (see ``gate_gradients``). Units: those of the loss.

    Source: Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, arXiv:1801.05787, section 3.1.
    Recalled, not re-checked against the paper's text.
    Differs: (1) a unit that several layers read adds up what each would say alone: the loss's curvature between
    readers is ``group_fisher``'s.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples.

    Raises:
        ModelError: as ``taylor``.
    """
    return completed(
        model,
        graph,
        mean_over_samples(
            model,
            graph,
            batches,
            loss,
            lambda parts: torch.stack([part.square().sum(0) for part in parts]).sum(0) / 2,
        ),
    )


def group_fisher(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss) -> Scores:
    """Score every unit by the empirical Fisher information of one gate for all its readers.

        score[u] = mean over samples n ( ( sum over readers r ( G_r[n, u] ) ) ^ 2 )

    First the sum over coupled readers, then the square, sample by sample.

    Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708,
    section 3.2, equations 4 to 8.
    Differs: (1) the mean over samples instead of the sum, so that scores do not grow with the data; (2) nothing is
    divided by memory or multiply-accumulates here: that is the method's, which knows what is left of the network.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples.

    Raises:
        ModelError: as ``taylor``.
    """
    known = mean_over_samples(model, graph, batches, loss, lambda parts: coupled(parts).square().sum(0))
    return completed(model, graph, known)
