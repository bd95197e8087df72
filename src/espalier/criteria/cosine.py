"""Cosine redundancy: a unit is worth how unlike all others of its group it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core import Role
from .signals.fallback import completed
from .signals.slices import Scores, slices, slot_parameters

if TYPE_CHECKING:
    from ..graph import Graph


def cosine_redundancy(model: nn.Module, graph: Graph) -> Scores:
    """Score every unit by its distance in angle from the unit most like it.

        w_u      = the unit's weights in all producers, side by side
        score[u] = 1 - max over v != u of  w_u . w_v / ( |w_u| |w_v| )                              in [0, 2]

    Of two units alike both score low: a plan that takes one should be scored again. A unit without weight scores 0.

    Source: Ayinde, Inanc and Zurada, Redundant feature pruning for accelerated inference in deep neural networks,
    Neural Networks 118, 2019. Recalled, not re-checked against the paper's text.
    Differs: (1) the likest other unit, where the paper clusters.

    Raises:
        ModelError: the model is not the one that was traced, or its weights are not finite.
    """
    tensors = slot_parameters(model, graph)
    known = {}
    for name, group in graph.groups.items():
        rows = [rows for slot, rows in slices(tensors, group) if slot.role is Role.PRODUCER]
        if rows and group.size > 1:
            known[name] = _unlike(torch.cat([one.to(rows[0].device) for one in rows], 1))
    return completed(model, graph, known)


def _unlike(rows: Tensor) -> Tensor:
    lengths = rows.norm(dim=1, keepdim=True)
    unit = rows / torch.where(lengths == 0, 1.0, lengths)
    likest = (unit @ unit.T).fill_diagonal_(-1).amax(1)
    return torch.where(lengths[:, 0] == 0, torch.zeros_like(likest), (1 - likest).clamp_min(0)) + 0 * lengths[:, 0]
