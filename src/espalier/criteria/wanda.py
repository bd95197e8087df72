"""Wanda: a unit is worth the weights that read it, times the length of what they read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.passes import Batches, Loss
from .signals.reader_calls import ReaderCall, weighed
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def wanda(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by its readers' weights times the norm of its activation.

        length[c] = sqrt( mean over samples ( sum over positions ( x[c]^2 ) ) )                     (a channel)
        score[u]  = sum over readers, channels c of u, and outputs i  ( | W[i, c] | * length[c] )

    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024,
    arXiv:2306.11695, section 3. Recalled, not re-checked against the paper's text.
    Differs: (1) the sum over a unit's columns, where the paper compares single weights within each output;
    (2) the mean over samples under the root, so that scores do not grow with the data.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    return completed(model, graph, weighed(model, graph, batches, _squares, torch.sqrt))


def _squares(call: ReaderCall) -> Tensor:
    rest = [d for d in range(call.x.dim()) if d != call.dim]
    return call.with_weights(call.x.square().sum(rest, dtype=torch.float64))
