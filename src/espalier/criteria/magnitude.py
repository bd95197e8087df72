"""Magnitude: a unit is worth the size of its weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core import UnknownNameError
from .signals.pooling import Measured, pooled
from .signals.slices import Scores, fold, slot_parameters

if TYPE_CHECKING:
    from ..graph import Graph

_NORMS = {"1": 1.0, "2": 2.0, "inf": math.inf}


def magnitude(
    model: nn.Module, graph: Graph, *, norm: float = 2, reduce: str = "sum", normalise: str = "mean"
) -> Scores:
    """Score every unit by the magnitude of its weights over all slots, batch norm and biases included.

        m[u, s]  = sum_j |W_s[u, j]|^p        (p = 1, 2);   max_j |W_s[u, j]|   (p = inf)
        score[u] = normalise over u ( reduce over slots s ( m[u, s] ) )

    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710, section 3.1 (L1 of a
    filter: ``norm=1, reduce="first", normalise="none"``); Fang et al., DepGraph, CVPR 2023, arXiv:2301.12900,
    section 3.3 (sum of squared norms over a group: the default). Recalled, not re-checked against the papers' text.
    Differs: (1) biases and norm weights count, as every parameter that a cut removes.

    Args:
        norm: 1, 2 or ``math.inf``.
        reduce: over the group's slots: "sum", "mean", "max", or "first" (the first producer alone).
        normalise: over the group's units: "none", "mean", "max", "sum" (divide by it), "standardise" (zero mean,
            unit deviation) or "size" (divide by the number of weights a unit holds).

    Returns:
        ``{group: scores of shape (size,)}``, higher is worth more.

    Raises:
        UnknownNameError: an unknown norm, reduction or normaliser.
        ModelError: the model is not the one that was traced, or its weights are not finite.
    """
    tensors = slot_parameters(model, graph)
    return pooled(graph, tensors, magnitudes(graph, tensors, norm), reduce=reduce, normalise=normalise)


def magnitudes(graph: Graph, tensors: dict[str, Tensor], norm: float) -> dict[str, Measured]:
    """Return m[u, s] of ``magnitude`` for every group, slot by slot.

    Raises:
        UnknownNameError: an unknown norm.
    """
    if norm not in _NORMS.values():
        raise UnknownNameError("norm", str(norm), _NORMS)

    pointwise = torch.square if norm == 2 else torch.abs
    return fold(graph, tensors, pointwise, torch.amax if math.isinf(norm) else torch.sum)
