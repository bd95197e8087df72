"""Operator rules: how each operator relates the units of its operands and outputs.

A rule takes a ``Call`` and returns one list of dimensions an output. To add one: write it in its family's file, enter
it in that file's ``RULES``, and give it a pattern in the tests. An operator without a rule freezes what it touches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch

from ...recording.record import Op
from ..inference import Call, Dims
from . import (
    attention,
    contraction,
    factories,
    indexing,
    norms,
    pieces,
    pointwise,
    recurrent,
    reductions,
    spatial,
    structure,
    vision,
)

Rule = Callable[[Call], list[Dims]]


def _counting(rule: Rule) -> Rule:
    """Make numbers that a rule says nothing about hold: places, strides, windows, how many to pick."""

    @wraps(rule)
    def held(call: Call) -> list[Dims]:
        outs = rule(call)
        call.hold_numbers(call.op.passed if rule in spatial.RULES.values() else ())  # a pool's, before it is unfolded
        return outs

    return held


_COUNTING = {*pieces.RULES, *indexing.RULES, *spatial.RULES, *vision.RULES, "unfold", "convolution", "kthvalue"} - {
    "affine_grid_generator"
}

RULES: dict[str, Rule] = {
    name: _counting(rule) if name in _COUNTING else rule
    for family in (
        pointwise,
        contraction,
        attention,
        norms,
        structure,
        pieces,
        indexing,
        spatial,
        reductions,
        factories,
        recurrent,
        vision,
    )
    for name, rule in family.RULES.items()
}


def rule_for(op: Op) -> Rule:
    """Return the rule of an operator: by name, by its out-of-place name, or as pointwise by its tag."""
    if isinstance(op.func, str):
        return RULES.get(op.func, Call.refuse)
    name = op.name.removeprefix("aten.")
    if name in RULES:
        return RULES[name]
    if op.func.namespace == "aten" and name.endswith("_") and name[:-1] in RULES:
        return RULES[name[:-1]]
    if torch.Tag.pointwise in op.func.tags:
        return pointwise.pointwise
    return Call.refuse


def has_rule(op: Op) -> bool:
    """Whether an operator is understood."""
    return rule_for(op) is not Call.refuse
