"""Joins: which groups a sum of activations couples, such as the channels of a residual stream."""

from __future__ import annotations

from ..graph import Graph
from .silence import Silencer, plain

_SUMS = ("add", "sub")


def joined(graph: Graph) -> frozenset[str]:
    """Return the groups that stand on several activations of one sum; the others are internal to their block."""
    record = graph.records[0]
    look = Silencer(graph, record, 0)
    found: set[int] = set()
    for op in record.ops:
        if plain(op) in _SUMS:
            terms = [value for value in dict.fromkeys(op.refs()) if not look.is_weight(value)]
            groups = [frozenset().union(*map(look.groups, look.dims[value])) for value in terms]
            found |= groups[0].intersection(*groups[1:]) if len(groups) > 1 else set()
    return frozenset(graph.order[number] for number in found)
