"""LDA utility: a unit is worth how well its activation alone tells the classes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.activations import activation_sums, by_sample, labels
from .signals.fallback import completed
from .signals.passes import Batches, Loss, Seen
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def lda(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, ridge: float = 1e-3) -> Scores:
    """Score every unit by the ratio of its scatter between classes to that within.

        a[n, u]  = max over positions of x[n, u],   at the group's last reader
        B[u]     = sum over classes c  n_c ( mean_c a - mean a )^2,    W[u] = sum over n ( a - mean of its class )^2
        score[u] = B[u] / ( W[u] + ridge * mean over units of W )

    Needs one class label a sample.

    Source: Tian, Arbel and Clark, Deep LDA-Pruned Nets for Efficient Facial Gender Classification, CVPR Workshops
    2017, and their later papers: within-class scatter is nearly diagonal before the decision, so that the generalised
    eigenvalues are the units' own ratios. Recalled, not re-checked against the papers' texts.
    Differs: (1) every group is judged by its own activations, where the papers judge the last layer's and trace the
    utility down by deconvolution; (2) the ridge.

    Args:
        batches: as in ``taylor``; targets are classes (samples,), or soft ones (samples, classes).
        loss: not used; data-driven criteria take the same arguments.
        ridge: as a ratio of the mean scatter within.

    Raises:
        ModelError: no batches, one that does not suit the model, or targets that are no classes.
    """

    def take(readings: list[Tensor], seen: Seen) -> list[Tensor]:
        classes, count = labels(seen)
        values = by_sample(readings[-1], seen.samples, lambda rows: rows.amax(1))
        if values is None:
            return []
        values = values.double()
        sums = values.new_zeros(count, values.shape[1]).index_add_(0, classes, values)
        numbers = torch.bincount(classes, minlength=count).double()
        return [sums, values.square().sum(0), numbers]

    found = activation_sums(model, graph, batches, lambda x: x.amax(2), take)
    return completed(
        model, graph, {name: _utility(one[0], one[1], one[2], ridge) for name, one in found.items() if one}
    )


def _utility(sums: Tensor, squares: Tensor, numbers: Tensor, ridge: float) -> Tensor:
    mean = sums.sum(0) / numbers.sum()
    means = sums / numbers.clamp_min(1)[:, None]
    within = (squares - (numbers[:, None] * means.square()).sum(0)).clamp_min(0)
    between = (numbers[:, None] * (means - mean).square()).sum(0)
    floor = ridge * within.mean()
    return between / (within + floor).clamp_min(torch.finfo(torch.float64).tiny) if bool(floor > 0) else between
