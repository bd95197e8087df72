"""Criteria: what each unit of each group is worth. One family a file.

Every criterion is a function ``criterion(model, graph, *, options) -> {group name: scores of shape (group.size,)}``,
higher is worth more. It scores every parameter slot of a group, by role and never by module type.
"""

from __future__ import annotations

import inspect

from ..core import UnknownNameError
from .bn_scale import bn_scale
from .fisher import fisher, group_fisher
from .geometric_median import geometric_median
from .grasp import grasp
from .karnin import karnin
from .lamp import lamp
from .magnitude import magnitude
from .obd import obd
from .obs import obs
from .random import random
from .reverse import Reversed, reverse
from .sensitivity_variance import sensitivity_variance
from .skeletonization import skeletonization
from .slices import Criterion, Scores, slices
from .snip import snip
from .synflow import synflow
from .taylor import taylor
from .taylor_gate import taylor_gate
from .taylor_second import taylor_second

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "bn_scale": bn_scale,
    "geometric_median": geometric_median,
    "lamp": lamp,
    "random": random,
    "synflow": synflow,
    # gradients of weights
    "taylor": taylor,
    "taylor_second": taylor_second,
    "snip": snip,
    "grasp": grasp,
    "obd": obd,
    "karnin": karnin,
    # gradients of gates, sample by sample
    "taylor_gate": taylor_gate,
    "fisher": fisher,
    "group_fisher": group_fisher,
    "obs": obs,
    "skeletonization": skeletonization,
    "sensitivity_variance": sensitivity_variance,
}

# these also need ``batches`` and take ``loss``
DATA_DRIVEN = frozenset(name for name, one in CRITERIA.items() if "batches" in inspect.signature(one).parameters)


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
    "named",
    "reads_data",
    "reverse",
    "slices",
]
