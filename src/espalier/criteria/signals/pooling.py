"""From numbers a slot to one number a unit, and from a group's own scale to a scale that groups share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core import Group, Role, Slot, UnknownNameError
from .slices import Scores, elements, finite

if TYPE_CHECKING:
    from ...graph import Graph

Measured = list[tuple[Slot, Tensor]]


def _first(measured: Measured) -> Tensor:
    """Return the first producer's numbers (the filter itself), or the first slot's where nothing produces."""
    return next((numbers for slot, numbers in measured if slot.role is Role.PRODUCER), measured[0][1])


def _stack(measured: Measured) -> Tensor:
    """Return (slots, units); slots of a model spread over devices meet on the first one's."""
    home = measured[0][1].device
    return torch.stack([numbers.to(home) for _, numbers in measured])


REDUCTIONS: dict[str, Callable[[Measured], Tensor]] = {
    "sum": lambda measured: _stack(measured).sum(0),
    "mean": lambda measured: _stack(measured).mean(0),
    "max": lambda measured: _stack(measured).amax(0),
    "first": _first,
}


def _over(scores: Tensor, divisor: Tensor) -> Tensor:
    """Divide, leaving a group whose divisor is zero as it is (an all-zero group stays zero)."""
    return scores / torch.where(divisor == 0, torch.ones_like(divisor), divisor)


# (scores, weights one unit holds) -> scores on a scale that groups share
NORMALISERS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "none": lambda scores, size: scores,
    "mean": lambda scores, size: _over(scores, scores.mean()),
    "max": lambda scores, size: _over(scores, scores.amax()),
    "sum": lambda scores, size: _over(scores, scores.sum()),
    "standardise": lambda scores, size: _over(scores - scores.mean(), scores.std(correction=0)),
    "size": lambda scores, size: scores / max(size, 1),
}


def reduced(measured: Measured, group: Group, reduce: str) -> Tensor:
    """Reduce a group's slots to one number a unit; a group without a parameter knows nothing: all ones.

    Raises:
        UnknownNameError: no such reduction.
    """
    if reduce not in REDUCTIONS:
        raise UnknownNameError("reduction", reduce, REDUCTIONS)
    return REDUCTIONS[reduce](measured) if measured else torch.ones(group.size)


def normalised(scores: Tensor, normalise: str, size: int) -> Tensor:
    """Bring one group's scores to a shared scale; ``size`` is how many weights a unit holds.

    Raises:
        UnknownNameError: no such normaliser.
    """
    if normalise not in NORMALISERS:
        raise UnknownNameError("normaliser", normalise, NORMALISERS)
    return NORMALISERS[normalise](scores, size)


def pooled(
    graph: Graph, tensors: Mapping[str, Tensor], measured: Mapping[str, Measured], *, reduce: str, normalise: str
) -> Scores:
    """Return scores of the measured groups: numbers a slot, reduced over slots, normalised over units.

    Raises:
        UnknownNameError: an unknown reduction or normaliser.
        ModelError: scores that are not finite.
    """
    scores = {}
    for name, pairs in measured.items():
        size = elements([slot for slot, _ in pairs], tensors)
        scores[name] = normalised(reduced(pairs, graph.groups[name], reduce), normalise, size)
    return finite(scores, graph, tensors)
