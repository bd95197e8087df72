"""Bounds: how few units each group may keep, from the user's patterns and floors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core import PlanError
from .patterns import matched

if TYPE_CHECKING:
    from ..graph import Graph

Floor = int | float


@dataclass(frozen=True)
class Bounds:
    """What the user asks of single groups.

    Attributes:
        held: groups that keep all their units.
        lower: ``{group: fewest units}``, for every group.
    """

    held: frozenset[str]
    lower: Mapping[str, int]


@dataclass(frozen=True)
class Wishes:
    """The user's patterns, checked against a graph.

    Attributes:
        held: groups that match ``keep``, or do not match ``only``.
        limits: ``{group: largest pruned ratio}`` of the groups that match ``limit``.
    """

    held: frozenset[str]
    limits: Mapping[str, float]


def wishes(
    graph: Graph, keep: Collection[str], limit: Mapping[str, float] | None, only: Collection[str] | None
) -> Wishes:
    """Match the patterns; where several match one group, the strictest wins.

    Raises:
        UnknownNameError: a pattern matches nothing.
        PlanError: a limit is no ratio, or patterns are not what holds names.
    """
    _check_patterns(keep, limit, only)
    held = {group for groups in matched(graph, keep).values() for group in groups}
    if only is not None:
        chosen = {group for groups in matched(graph, only, owned=True).values() for group in groups}
        held |= graph.groups.keys() - chosen
    limits: dict[str, float] = {}
    for pattern, groups in matched(graph, limit or {}).items():
        ratio = (limit or {})[pattern]
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0.0 <= ratio <= 1.0:
            raise PlanError(f"limit {pattern!r}: {ratio!r} is not a ratio in [0, 1] of the units that may be pruned")
        limits.update((group, min(float(ratio), limits.get(group, 1.0))) for group in groups)
    return Wishes(frozenset(held), limits)


def _check_patterns(keep: Collection[str], limit: Mapping[str, float] | None, only: Collection[str] | None) -> None:
    for name, given in (("keep", keep), ("only", only)):
        if isinstance(given, str):
            raise PlanError(f"{name}={given!r} is a string; give a list of patterns: {name}=[{given!r}]")
        if given is not None and not (isinstance(given, Collection) and all(isinstance(one, str) for one in given)):
            raise PlanError(f"{name}={given!r}: give a list of patterns, such as {name}=['layer3.*']")
    if limit is not None and not (isinstance(limit, Mapping) and all(isinstance(one, str) for one in limit)):
        raise PlanError(f"limit={limit!r}: give a ratio a pattern, such as limit={{'layer3.*': 0.5}}")


def bounds(graph: Graph, wish: Wishes, floor: Floor) -> Bounds:
    """Turn wishes and a floor into the fewest units a group.

    Args:
        graph: gives the groups' sizes.
        wish: from ``wishes``.
        floor: an int is a number of units, a float a ratio of the group's; at least one unit always stays.

    Raises:
        PlanError: the floor is neither.
    """
    if isinstance(floor, bool) or not isinstance(floor, int | float) or floor < 0:
        raise PlanError(f"floor={floor!r}: give a number of units (int) or a ratio in [0, 1] (float)")
    if isinstance(floor, float) and not floor <= 1.0:
        raise PlanError(f"floor={floor!r}: a float is a ratio in [0, 1]; write an int for a number of units")
    lower = {}
    for name, group in graph.groups.items():
        least = floor if isinstance(floor, int) else _part(floor, group.size)
        allowed = _part(1.0 - wish.limits.get(name, 1.0), group.size)
        lower[name] = group.size if name in wish.held else min(max(1, least, allowed), group.size)
    return Bounds(wish.held, lower)


def _part(ratio: float, size: int) -> int:
    """Return the smallest whole number that is at least ``ratio * size``, blind to rounding of the product."""
    return math.ceil(ratio * size - 1e-9)
