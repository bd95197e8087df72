"""Batch-norm scale: a channel is worth the factor that its normalisation learned for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..core import ModelError, Role
from .magnitude import magnitudes
from .signals.pooling import Measured, normalised, reduced
from .signals.slices import Scores, finite, fold, slot_parameters

if TYPE_CHECKING:
    from ..graph import Graph


def bn_scale(model: nn.Module, graph: Graph, *, reduce: str = "mean", normalise: str = "none") -> Scores:
    """Score every unit by the absolute scale that multiplies it.

        score[u] = reduce over scale slots s ( |gamma_s[u]| )

    Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    arXiv:1708.06519, section 3 (one global threshold over |gamma|). Recalled, not re-checked against the paper's text.
    Differs: (1) any slot of role scale counts: layer-norm weights and layer scales too; (2) a unit with several
    scales (a residual stream) takes their mean; (3) a group without a scale falls back to the Euclidean length of
    its weights, rescaled so that its mean is the mean |gamma| of the network: one global threshold then treats it
    like an average group instead of emptying or sparing it.

    Args:
        reduce: over the group's scale slots: "sum", "mean", "max" or "first".
        normalise: as in ``magnitude``; the paper compares raw scales.

    Raises:
        ModelError: no group has a scale, or the model is not the one that was traced.
        UnknownNameError: an unknown reduction or normaliser.
    """
    tensors = slot_parameters(model, graph)
    total = fold(graph, tensors, torch.abs)
    scales = {name: _averaged(measured, tensors) for name, measured in total.items()}
    known = {name: reduced(scales[name], graph.groups[name], reduce) for name in scales if scales[name]}
    if graph.groups and not known:
        raise ModelError("bn_scale: no group has a normalisation scale; use magnitude, or another criterion")
    typical = float(torch.cat([numbers.flatten().cpu() for numbers in known.values()]).mean()) if known else 1.0
    bare = magnitudes(graph, tensors, 2) if len(known) < len(graph.groups) else {}
    scores = {}
    for name, group in graph.groups.items():
        if name in known:
            scores[name] = normalised(known[name], normalise, 1)
        else:
            length = reduced(bare[name], group, "sum").sqrt()
            scores[name] = normalised(normalised(length, "mean", 1) * typical, normalise, 1)
    return finite(scores, graph, tensors)


def _averaged(measured: Measured, tensors: dict) -> Measured:
    """Return the scale slots alone, each as the mean over the numbers that a unit holds there."""
    return [
        (slot, total / (slot.positions.shape[1] * tensors[slot.tensor].numel() // tensors[slot.tensor].shape[slot.dim]))
        for slot, total in measured
        if slot.role is Role.SCALE
    ]
