"""Geometric median: a unit close to all others is replaceable by them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.pooling import normalised
from .signals.slices import Scores, elements, finite, slices, slot_parameters

if TYPE_CHECKING:
    from ..graph import Graph

_BLOCK_ELEMENTS = 1 << 24  # of the distance matrix held at once: 64 MiB in float32


def geometric_median(model: nn.Module, graph: Graph, *, normalise: str = "mean") -> Scores:
    """Score every unit by the sum of its distances to all units of its group.

        x_u      = the weights of unit u in all slots, concatenated
        score[u] = sum_v || x_u - x_v ||_2

    Source: He et al., Filter Pruning via Geometric Median (FPGM), CVPR 2019, arXiv:1811.00250, section 3.3.
    Recalled, not re-checked against the paper's text.
    Differs: (1) x_u holds all slots of the group, where the paper takes the filter alone.

    Args:
        normalise: as in ``magnitude``.

    Raises:
        UnknownNameError: an unknown normaliser.
        ModelError: the model is not the one that was traced.
    """
    tensors = slot_parameters(model, graph)
    scores = {}
    for name, group in graph.groups.items():
        matrices = list(slices(tensors, group))
        if matrices:
            sums = _distance_sums([matrix for _, matrix in matrices])
            scores[name] = normalised(sums, normalise, elements([slot for slot, _ in matrices], tensors))
        else:
            scores[name] = torch.ones(group.size)
    return finite(scores, graph, tensors)


def _distance_sums(matrices: Iterable[Tensor]) -> Tensor:
    """Return, for each row, the sum of its distances to all rows, over the matrices side by side."""
    # Distances do not change when all rows shift; centred rows are short, so the Gram form cancels less.
    centred = [matrix - matrix.mean(0) for matrix in matrices]
    home = centred[0].device
    squares = torch.stack([matrix.square().sum(1).to(home) for matrix in centred]).sum(0)
    units = squares.shape[0]
    step = max(1, _BLOCK_ELEMENTS // units)
    sums = []
    for start in range(0, units, step):
        part = slice(start, start + step)
        gap = squares[part, None] + squares[None, :]
        for matrix in centred:
            gap -= 2 * (matrix[part] @ matrix.T).to(home)
        gap[:, part].fill_diagonal_(0)  # exactly: rounding would leave the root of a small number
        sums.append(gap.clamp_(min=0).sqrt_().sum(1))
    return torch.cat(sums)
