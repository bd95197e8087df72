"""Fallback: groups of which a criterion knows nothing are ranked by magnitude, on the criterion's own scale.

    length[u] = Euclidean length of the weights of unit u
    score[u]  = the quantile of all known scores at u's rank by length in its group

A group then has the spread of an average group: one global threshold neither empties nor spares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core import ModelError
from .magnitude import magnitudes
from .pooling import reduced
from .slices import Scores, slot_parameters

if TYPE_CHECKING:
    from ..graph import Graph


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
    missing = [name for name in graph.groups if name not in known]
    if not missing:
        return {name: known[name] for name in graph.groups}
    tensors = slot_parameters(model, graph)
    measured = magnitudes(graph, tensors, 2)
    lengths = {name: reduced(measured[name], graph.groups[name], "sum").sqrt() for name in missing}
    typical = torch.cat([one.flatten().cpu() for one in known.values()]).sort().values if known else None
    return {name: known[name] if name in known else _quantiles(lengths[name], typical) for name in graph.groups}


def _quantiles(lengths: Tensor, typical: Tensor | None) -> Tensor:
    """Return, for each unit, the known score at its rank; its length where nothing is known."""
    if not bool(lengths.isfinite().all()):
        raise ModelError("weights are NaN, infinite or too large and have no score")
    if typical is None:
        return lengths
    rising = lengths.sort().values
    left, right = (torch.searchsorted(rising, lengths, right=side) for side in (False, True))
    share = (left + right).double() / (2 * len(lengths))  # equal lengths share one rank
    place = (share.cpu() * len(typical)).long().clamp(max=len(typical) - 1)
    return typical[place].to(lengths.device)
