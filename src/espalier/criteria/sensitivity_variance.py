"""Variance of sensitivity: a unit that moves the outputs alike for every sample carries no information."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..graph.probes.outputs import logits
from .signals.fallback import completed
from .signals.gate_gradients import coupled, mean_over_samples
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def sensitivity_variance(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by how much the outputs' sensitivity to it varies from sample to sample.

        S[n, u]  = d ( mean over outputs k of o_k(n) ) / d gate[u]
        score[u] = variance over samples n of S[n, u]

    Needs no targets and no loss.

    Source: Engelbrecht, A New Pruning Heuristic Based on Variance Analysis of Sensitivity Information, IEEE
    Transactions on Neural Networks 12(6), 2001. Recalled, not re-checked against the paper's text.
    Differs: (1) sensitivity to the unit's gate, not to its activation: it needs no scale of activations; (2) the
    variance itself, where the paper tests whether it is nil.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: as ``taylor``.
    """
    sums = mean_over_samples(model, graph, batches, _outputs, _moments, summed=True)
    # a batch whose samples cannot be told apart has no variance: such groups are left to the fallback
    known = {name: (two - one.square()).clamp_min(0) for name, (one, two, told) in sums.items() if bool(told.all())}
    return completed(model, graph, known)


def _outputs(outputs: Any, targets: Any) -> Tensor:
    """Return the sum over samples of the mean output."""
    found = logits(outputs)
    return found.sum() / (found[0].numel() if found.dim() else 1)


def _moments(parts: list[Tensor]) -> Tensor:
    """Return sums over samples of S, of S^2, and of ones where samples are told apart: (3, units)."""
    gradient = coupled(parts).double()
    return torch.stack([gradient.sum(0), gradient.square().sum(0), torch.full_like(gradient[0], len(gradient))])
