"""Taylor at the gates: a unit is worth what each sample's loss would change, to first order, without its activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .signals.fallback import completed
from .signals.gate_gradients import coupled, mean_over_samples
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def taylor_gate(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss) -> Scores:
    """Score every unit by activation times gradient, its absolute value taken sample by sample.

        score[u] = mean over samples n ( | sum over readers r ( G_r[n, u] ) | )

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017,
    arXiv:1611.06440, section 2.2. Recalled, not re-checked against the paper's text.
    Differs: (1) activations where they are read, after norms and non-linearities, all readers of a unit together;
    (2) the sum over positions, where the paper takes their mean: the score is a change of the loss; (3) scores are
    not divided by their layer's length.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples.

    Raises:
        ModelError: as ``taylor``.
    """
    known = mean_over_samples(model, graph, batches, loss, lambda parts: coupled(parts).abs().sum(0))
    return completed(model, graph, known)
