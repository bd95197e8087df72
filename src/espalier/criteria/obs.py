"""Optimal brain surgeon over gates: a unit is worth the loss without it once the other units' gates have made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.gate_gradients import coupled, mean_over_samples
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def obs(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss, damping: float = 1e-2) -> Scores:
    """Score every unit by the loss that its gate's removal costs, the group's other gates following.

        F        = mean over samples n ( G[n] G[n]^T ) + damping * mean of its diagonal * 1     (units, units)
        score[u] = 1/2 * gate[u]^2 / (F^-1)[u, u],    gate = 1

    Source: Hassibi and Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NeurIPS 1992, with
    the Fisher information for the Hessian as Singh and Alistarh, WoodFisher, NeurIPS 2020, arXiv:2004.14340, do.
    Recalled, not re-checked against the papers' texts.
    Differs: (1) the parameters are the gates of a group's units, not single weights: the block a group, exact there;
    (2) the weights are not changed: recovery does that after the cut.

    Memory: units^2 numbers a group.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples.
        damping: of the diagonal, as a ratio of its mean.

    Raises:
        ModelError: as ``taylor``.
    """
    known = mean_over_samples(model, graph, batches, loss, lambda parts: _outer(coupled(parts)))
    return completed(model, graph, {name: _saliency(block, damping) for name, block in known.items()})


def _outer(gradients: Tensor) -> Tensor:
    return (gradients.T @ gradients).double()


def _saliency(block: Tensor, damping: float) -> Tensor:
    """Return 1 / (2 (F + damping)^-1[u, u]); zeros where the loss depends on no unit."""
    typical = block.diagonal().mean()
    if not bool(typical > 0):
        return block.diagonal().clone()
    damped = block / typical + damping * torch.eye(len(block), dtype=block.dtype, device=block.device)
    return typical / (2 * torch.linalg.inv(damped).diagonal())
