"""Fallback: groups of which a criterion knows nothing are ranked by magnitude, on the criterion's own scale.

    length[u] = Euclidean length of the weights of unit u
    score[u]  = the quantile of all known scores at u's rank by length in its group

A group then has the spread of an average group: one global threshold neither empties nor spares it. Where a criterion
gives all units of a group one score that is not zero, their rank by length decides among them, in its sixth digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core import ModelError
from ..magnitude import magnitudes
from .pooling import reduced
from .slices import Scores, slot_parameters

if TYPE_CHECKING:
    from ...graph import Graph


def completed(model: nn.Module, graph: Graph, known: Mapping[str, Tensor]) -> Scores:
    """Return finite scores of every group, those in ``known`` as they are.

    Raises:
        ModelError: a known score is NaN or infinite, or a group's weights are.
    """
    for name, scores in known.items():
        if not bool(scores.isfinite().all()):
            raise ModelError(
                f"group {name!r}: its scores are not finite; the weights, or what they make of a batch, are NaN, "
                "infinite or too large"
            )
    unknown = [name for name in graph.groups if name not in known]
    if not unknown and not any(_level(scores) for scores in known.values()):
        return {name: known[name] for name in graph.groups}
    tensors = slot_parameters(model, graph)
    measured = magnitudes(graph, tensors, 2)
    lengths = {name: reduced(measured[name], group, "sum").sqrt() for name, group in graph.groups.items()}
    shares = {name: _shares(lengths[name]) for name in graph.groups}
    scores = {**known, **{name: shares[name] for name in unknown}}
    if known:
        typical = torch.cat([one.flatten().cpu() for one in known.values()]).sort().values
        for name in unknown:
            scores[name] = typical[(shares[name].cpu() * len(typical)).long().clamp(max=len(typical) - 1)]
    return {name: _told_apart(scores[name], shares[name]) for name in graph.groups}


def _told_apart(scores: Tensor, shares: Tensor) -> Tensor:
    """Return scores that are all alike in another order, by a millionth of them."""
    return scores + scores.abs() * 1e-6 * (shares.to(scores.device) - 0.5) if _level(scores) else scores


def _level(scores: Tensor) -> bool:
    """Whether all units score alike, and not zero."""
    return len(scores) > 1 and bool((scores == scores[0]).all()) and bool(scores[0] != 0)


def _shares(lengths: Tensor) -> Tensor:
    """Return each unit's rank by length as a share of the units, float64; equal lengths share one rank."""
    if not bool(lengths.isfinite().all()):
        raise ModelError("weights are NaN, infinite or too large and have no score")
    rising = lengths.sort().values
    left, right = (torch.searchsorted(rising, lengths, right=side) for side in (False, True))
    return (left + right).double() / (2 * len(lengths))
