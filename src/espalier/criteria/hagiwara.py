"""Hagiwara's measures: a unit is worth the energy of the signals that it sends, or the energy that it consumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from .signals.fallback import completed
from .signals.output_grams import output_grams
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def hagiwara_goodness(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, positions: int = 10
) -> Scores:
    """Score every unit by its goodness factor: the energy of its signals to the next layer.

        score[u] = mean over samples, sum over positions, readers and outputs j  ( w_uj o_u )^2

    Source: Hagiwara, Removal of Hidden Units and Weights for Back Propagation Networks, IJCNN 1993, and A Simple and
    Effective Method for Removal of Hidden Units and Weights, Neurocomputing 6, 1994. Recalled, not re-checked.
    Differs: (1) the signal of a convolution's channel is the sum over its taps; (2) a mean over samples.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        positions: of each sample that are looked at in a reader's output.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    grams = output_grams(model, graph, batches, positions=positions)
    return completed(model, graph, {name: gram.diagonal() for name, gram in grams.items()})


def hagiwara_energy(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, positions: int = 10
) -> Scores:
    """Score every unit by its consuming energy: how far its signals go along with what the next layer computes.

        score[u] = mean over samples, sum over positions, readers and outputs j  ( w_uj o_u * o_j )

    A unit that works against the others scores below zero.

    Source: as ``hagiwara_goodness``.
    Differs: (1) o_j is the next layer's sum before bias and non-linearity, where the paper takes its output: what lies
    behind a reader may be anything; (2) as ``hagiwara_goodness``.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        positions: of each sample that are looked at in a reader's output.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    grams = output_grams(model, graph, batches, positions=positions)
    return completed(model, graph, {name: gram.sum(1) for name, gram in grams.items()})
