"""N2PS: a unit is worth its activation over all samples, times the weights of its outgoing connections."""

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


def n2ps(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by its significance: its total activation through all its outgoing weights.

        score[u] = sum over readers, channels c of u, outputs i ( | W[i, c] * mean over samples, positions ( x[c] ) | )

    Source: Augasta and Kathirvalavakumar, A Novel Pruning Algorithm for Optimizing Feedforward Neural Network of
    Classification Problems, Neural Processing Letters 34, 2011 (neural network pruning by significance). From its
    abstract: the formula is our reading of it.
    Differs: (1) the network's own activation, where the paper's networks are sigmoidal; (2) the mean over samples of
    the activation, where the paper takes the activation of the total input: the two differ by the non-linearity.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    return completed(model, graph, weighed(model, graph, batches, _activations, torch.abs))


def _activations(call: ReaderCall) -> Tensor:
    """Take the sum over samples of the mean over positions."""
    rest = [d for d in range(call.x.dim()) if d != call.dim]
    rows = call.x.shape[0] if call.dim > 0 else 1
    return call.with_weights(call.x.mean(rest, dtype=torch.float64) * rows)
