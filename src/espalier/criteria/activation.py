"""Activation statistics: a unit is worth how large, how varied, or how often there, its activation is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.activations import Read, activation_sums
from .signals.fallback import completed
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def activation_mean(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by its mean absolute activation.

        score[u] = mean over readers, samples and positions of | x[u] |

    Source: one of the criteria in Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient
    Inference, ICLR 2017, arXiv:1611.06440, section 2.2. Recalled, not re-checked against the paper's text.
    Differs: (1) the absolute value, so that networks without ReLU have a mean; (2) activations as readers see them.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """

    def read(x: Tensor) -> Tensor:
        return torch.stack([x.abs().sum((0, 2), dtype=torch.float64), _count(x)])

    sums = _by_reading(model, graph, batches, read)
    return completed(model, graph, {name: (one[:, 0] / one[:, 1]).mean(0) for name, one in sums.items()})


def activation_variance(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by the variance of its activation.

        score[u] = mean over readers of the variance of x[u] over samples and positions

    Source: Polyak and Wolf, Channel-Level Acceleration of Deep Face Representations, IEEE Access 2015 (inbound
    pruning). Recalled, not re-checked against the paper's text.
    Differs: (1) activations as readers see them.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """

    def read(x: Tensor) -> Tensor:
        # about the batch's own mean first: in float32 a sum of squares would lose a small variance to a large mean
        count, mean = _count(x), x.mean((0, 2))
        spread = (x - mean[:, None]).square().sum((0, 2), dtype=torch.float64)
        mean = mean.double()
        return torch.stack([count * mean, spread + count * mean.square(), count])

    known = {
        name: (one[:, 1] / one[:, 2] - (one[:, 0] / one[:, 2]).square()).clamp_min(0).mean(0)
        for name, one in _by_reading(model, graph, batches, read).items()
    }
    return completed(model, graph, known)


def nonzero_count(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, threshold: float = 0.0
) -> Scores:
    """Score every unit by how often its activation is not zero.

        score[u] = mean over readers, samples and positions of [ | x[u] | > threshold ]        in [0, 1]
                 = 1 - APoZ[u]

    The average percentage of zeros is what a unit is *not* worth; this is its complement.

    Source: Hu et al., Network Trimming, arXiv:1607.03250, section 2.1 (APoZ). Recalled, not re-checked.
    Differs: (1) the sign, as every score here; (2) activations as readers see them.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        threshold: for networks whose activations are small but never zero.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """

    def read(x: Tensor) -> Tensor:
        spoiled = 0 * x.sum((0, 2))  # NaN where an activation is no number: a comparison would hide that
        return torch.stack([(x.abs() > threshold).sum((0, 2), dtype=torch.float64) + spoiled, _count(x)])

    sums = _by_reading(model, graph, batches, read)
    return completed(model, graph, {name: (one[:, 0] / one[:, 1]).mean(0) for name, one in sums.items()})


def _count(x: Tensor) -> Tensor:
    return torch.full((x.shape[1],), x.shape[0] * x.shape[2], dtype=torch.float64, device=x.device)


def _by_reading(model: nn.Module, graph: Graph, batches: Batches, read: Read) -> dict[str, Tensor]:
    """Return ``{group: (readings, sums, units)}``."""
    return {name: torch.stack(one) for name, one in activation_sums(model, graph, batches, read).items() if one}
