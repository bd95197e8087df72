"""Output Grams: what each unit adds to what its readers compute, as inner products of these parts.

    y_u      = sum over channels c of u, and taps:  W[:, c] x[c]         (a reader's output is sum over u of y_u)
    G[u, v]  = mean over samples, sum over positions and readers  ( y_u . y_v )          (units, units)

    error of leaving out S       = sum over u, v in S of G[u, v]                     before any bias or non-linearity
    error with factors beta      = (1 - beta)^T G (1 - beta)

G is made block by block from second moments of the reader's features and of its weights; outputs are never stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .passes import Batches
from .reader_calls import ReaderCall, call_sums

if TYPE_CHECKING:
    from ...graph import Graph

_BLOCK_ELEMENTS = 1 << 24  # of a product of moments held at once


def output_grams(model: nn.Module, graph: Graph, batches: Batches, *, positions: int) -> dict[str, Tensor]:
    """Return ``{group: G}``, float64, of groups all of whose readers are products with a weight.

    Args:
        positions: output positions of each sample that are looked at, evenly spread; their sum is scaled up to all.

    Raises:
        ModelError: as ``each_batch``, or a model that is not the one that was traced.
    """
    sums, samples = call_sums(model, graph, batches, lambda call: _gram(call, positions))
    return {name: torch.stack(readings).sum(0) / samples for name, readings in sums.items() if readings}


def _gram(call: ReaderCall, positions: int) -> Tensor:
    """Return the sum over samples of one reader's inner products, (units, units)."""
    features, matrix = call.features(positions), call.matrix()
    blocks, _, width = matrix.shape
    size = len(call.positions)
    units = call.units().repeat_interleave(blocks * width // call.channels).reshape(blocks, width)
    gram = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=features.device)
    step = max(1, _BLOCK_ELEMENTS // width)
    for block in range(blocks):
        x, w, unit = features[block], matrix[block], units[block]
        for start in range(0, width, step):
            rows = slice(start, start + step)
            products = (x[:, rows].T @ x) * (w[:, rows].T @ w)
            columns = gram.new_zeros(len(products), size + 1).index_add_(1, unit, products.double())
            gram.index_add_(0, unit[rows], columns)
    return gram[:size, :size] * call.share(positions)
