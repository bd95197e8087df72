"""Describing: which values of a config's attributes give every size that was seen, where there are such values.

Each observation says *expression(attributes of the config) = size after the cut*. Bare attributes come first; an
expression with one attribute left determines it. An attribute for which two places want different values describes
neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..recording.sizes import FUNCTIONS, ROUNDINGS, Expr, evaluate, leaves

Key = tuple[str, tuple]  # (module, path) of an attribute


@dataclass(frozen=True)
class Observation:
    """A size that the config gives.

    Attributes:
        expr: in attributes of the config.
        size: what it must be after the cut.
        where: the tensor or attribute that has this size.
    """

    expr: Expr
    size: int
    where: str


@dataclass
class Description:
    """What became of a config's attributes.

    Attributes:
        values: of every attribute that all observations agree on.
        plain: the attributes among them that are themselves the size of something.
        unequal: ``{attribute: {value: a place that wants it}}`` of the others.
        broken: observations that the agreed values do not meet.
        doubtful: places whose sizes come from unequal attributes, or are broken.
    """

    values: dict[Key, int] = field(default_factory=dict)
    plain: set[Key] = field(default_factory=set)
    unequal: dict[Key, dict[int, str]] = field(default_factory=dict)
    broken: list[Observation] = field(default_factory=list)
    doubtful: set[str] = field(default_factory=set)

    def certain(self) -> Description:
        """Return it with the plain values alone: an expression may hide a number that Python rounded."""
        return replace(self, values={key: value for key, value in self.values.items() if key in self.plain})


def describe_sizes(observations: Sequence[Observation], originals: Mapping[Key, int]) -> Description:
    """Solve for the attributes of a config; ``originals`` are their values before the cut."""
    distinct = list({(one.expr, one.size): one for one in reversed(observations)}.values())[::-1]
    found = Description(plain={one.expr[1:] for one in distinct if one.expr[0] == "attr"})
    while wanted := _wanted(distinct, found, originals):
        for key, places in wanted.items():
            if len(places) == 1:
                found.values[key] = next(iter(places))
            else:
                found.unequal[key] = places
    found.broken = [one for one in distinct if _is_broken(one, found)]
    broken = {(one.expr, one.size) for one in found.broken}
    found.doubtful = {
        one.where for one in observations if _keys(one) & found.unequal.keys() or (one.expr, one.size) in broken
    }
    return found


def _is_broken(one: Observation, found: Description) -> bool:
    return _keys(one) <= found.values.keys() and _value(one.expr, found.values) != one.size


def _wanted(
    observations: Sequence[Observation], found: Description, originals: Mapping[Key, int]
) -> dict[Key, dict[int, str]]:
    """Return ``{attribute: {value: a place that wants it}}`` of what is next to be known, bare attributes first."""
    for bare in (True, False):
        wanted: dict[Key, dict[int, str]] = {}
        for one in observations:
            left = _keys(one) - found.values.keys()
            if len(left) != 1 or left & found.unequal.keys() or bare != (one.expr[0] == "attr"):
                continue
            (key,) = left
            value = _solved(one, key, {**originals, **found.values})
            if value is not None:
                wanted.setdefault(key, {}).setdefault(value, one.where)
        if wanted:
            return wanted
    return {}


def _solved(one: Observation, key: Key, values: dict[Key, int]) -> int | None:
    """Return the value of ``key`` that gives the size, for expressions linear in it or in its inverse."""
    old, exact = values[key], _exact(one.expr)
    before, twice = _value(exact, values), _value(exact, {**values, key: 2 * old})
    if math.isclose(before, twice):
        return None  # heads * (hidden // heads) says nothing about heads
    for guess in (old, old + (one.size - before) * old / (twice - before), old * before / one.size):
        near = round(guess) if math.isfinite(guess) else 0
        if near >= 1 and _value(one.expr, {**values, key: near}) == one.size:
            return near
    return None


def _exact(expr: Expr) -> Expr:
    """Return an expression that does not round."""
    if expr[0] in ("attr", "const"):
        return expr
    if expr[0] in ROUNDINGS:
        return _exact(expr[1])
    if expr[0] in FUNCTIONS:
        return expr[0], _exact(expr[1])
    return ("/" if expr[0] == "//" else expr[0], _exact(expr[1]), _exact(expr[2]))


def _value(expr: Expr, values: Mapping[Key, int]) -> float:
    try:
        return evaluate(expr, lambda leaf: values[leaf[1:]])
    except (ZeroDivisionError, ValueError):
        return float("nan")


def _keys(one: Observation) -> set[Key]:
    return {leaf[1:] for leaf in leaves(one.expr)}
