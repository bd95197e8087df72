"""Cost-aware control: what of an allowed loss each layer may use, how strongly it is pruned next, and what was tried.

floor_l = reference - allowed * (MACs removable up to and with l) / (MACs removable in all)
accepted: lambda <- 2 lambda        rejected: lambda <- sqrt(lambda * the last accepted), or lambda / 2 without one
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..graph import Graph


@dataclass(frozen=True)
class Trial:
    """One selection of one layer: lambda, channels before and after, points lost against dense, and the verdict."""

    layer: str
    strength: float
    before: int
    after: int
    drop: float
    accepted: bool


def allowances(graph: Graph, fewest: Mapping[str, int], reference: float, allowed: float) -> list[float]:
    """Return the lowest metric after each layer, so that what one layer does not use the next ones may.

    Args:
        graph: before anything is cut.
        fewest: ``{group: units that it keeps at least}``, in the order of their turns.
        reference: metric of the dense network, in [0, 1].
        allowed: what all layers together may lose of it.
    """
    whole = graph.cost().macs
    removable = [whole - graph.cost({name: least}).macs for name, least in fewest.items()]
    total = max(sum(removable), 1)
    return [reference - allowed * sum(removable[: i + 1]) / total - 1e-9 for i in range(len(removable))]


def weaker(strength: float, accepted: float) -> float:
    """Return the lambda after a rejected one: between it and the last accepted (0 where none was).

    >>> weaker(8.0, 2.0), weaker(8.0, 0.0)
    (4.0, 4.0)
    """
    return math.sqrt(strength * accepted) if accepted else strength / 2


def told(layer: str, kept: int, log: Iterable[Trial]) -> str:
    """Return a layer's line: what it keeps and what was tried."""
    own = [one for one in log if one.layer == layer]
    words = [
        f"lambda {one.strength:.3g}: {one.after}, drop {one.drop:+.2f}{'' if one.accepted else ' undone'}"
        for one in own
    ]
    return f"{layer} keeps {kept} of {own[0].before} ({'; '.join(words)})"
