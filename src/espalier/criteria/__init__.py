"""Criteria: what each unit of each group is worth. One family a file.

Every criterion is a function ``criterion(model, graph, *, options) -> {group name: scores of shape (group.size,)}``,
higher is worth more. It scores every parameter slot of a group, by role and never by module type.
"""

from __future__ import annotations

from ..core import UnknownNameError
from .bn_scale import bn_scale
from .geometric_median import geometric_median
from .lamp import lamp
from .magnitude import magnitude
from .random import random
from .reverse import Reversed, reverse
from .slices import Criterion, Scores, slices
from .taylor import taylor

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "bn_scale": bn_scale,
    "geometric_median": geometric_median,
    "lamp": lamp,
    "random": random,
    "taylor": taylor,
}

DATA_DRIVEN = frozenset({"taylor"})  # these also need ``batches`` and ``loss``


REVERSED = "reversed:"  # begins the names of anti-heuristics: "reversed:magnitude" cuts what magnitude keeps


def named(name: str) -> Criterion:
    """Return the criterion called ``name``, or ``reverse`` of it where the name begins with "reversed:".

    Raises:
        UnknownNameError: no criterion has that name.
    """
    plain = name.removeprefix(REVERSED)
    if plain not in CRITERIA:
        raise UnknownNameError("criterion", name, CRITERIA)
    return CRITERIA[name] if plain == name else reverse(CRITERIA[plain])


def reads_data(name: str) -> bool:
    """Say whether the criterion called ``name``, or the one that it reverses, needs ``batches`` and ``loss``."""
    return name.removeprefix(REVERSED) in DATA_DRIVEN


__all__ = [
    "CRITERIA",
    "DATA_DRIVEN",
    "REVERSED",
    "Criterion",
    "Reversed",
    "Scores",
    "bn_scale",
    "geometric_median",
    "lamp",
    "magnitude",
    "named",
    "random",
    "reads_data",
    "reverse",
    "slices",
    "taylor",
]
