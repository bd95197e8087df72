"""LAMP: a magnitude that one global threshold can compare across layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .magnitude import magnitude
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def lamp(model: nn.Module, graph: Graph, *, reduce: str = "sum") -> Scores:
    """Score every unit by its energy over the energy of all units at least as strong.

        m[u]     = reduce over slots s ( sum_j W_s[u, j]^2 )
        score[u] = m[u] / sum of m[v] over { v : m[v] >= m[u] }

    The strongest unit of a group scores 1 (when it is alone at the top), so a global threshold empties no group.

    Source: Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, arXiv:2010.07611,
    section 2. Recalled, not re-checked against the paper's text.
    Differs: (1) units instead of single weights; (2) equal units share one denominator, where the paper orders
    them by index: the score then does not depend on the order of units.

    Args:
        reduce: over the group's slots: "sum", "mean", "max" or "first".

    Raises:
        UnknownNameError: an unknown reduction.
        ModelError: the model is not the one that was traced.
    """
    energies = magnitude(model, graph, norm=2, reduce=reduce, normalise="none")
    return {name: _share_of_stronger(energy) for name, energy in energies.items()}


def _share_of_stronger(energy: Tensor) -> Tensor:
    """Return energy[u] / sum of energy[v] over the v with energy[v] >= energy[u]; an all-zero group scores 0."""
    rising = energy.sort().values
    stronger = rising.flip(0).cumsum(0).flip(0)  # stronger[i] = rising[i] + ... + rising[last]
    total = stronger[torch.searchsorted(rising, energy)]
    return energy / torch.where(total == 0, torch.ones_like(total), total)
