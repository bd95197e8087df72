"""Counts that satisfy every tie, and leave every comparison as it came out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING

from .units import Why

if TYPE_CHECKING:
    from .conditions import Condition

_STEPS = 16  # to full size, at which every comparison comes out as it did


@dataclass
class Monomials:
    """derived = coefficient * product of drivers ** power, by group number."""

    derived: int
    coefficient: Fraction
    powers: dict[int, int]
    why: Why


@dataclass(frozen=True)
class Limits:
    """What counts must satisfy.

    Attributes:
        sizes: units a group.
        ties: derived groups.
        multiples: ``{group: what its count must be a multiple of}``.
        conditions: comparisons that must come out as they did.
    """

    sizes: list[int]
    ties: list[Monomials]
    multiples: Mapping[int, int]
    conditions: Sequence[Condition] = ()

    def feasible(self, wanted: Sequence[int], held: Collection[int] = ()) -> list[int]:
        """Return counts near ``wanted``; where a comparison turns round, its groups and their ties keep more."""
        counts = self._tied(wanted, held)
        for step in range(1, _STEPS + 1):
            broken = [one for one in self.conditions if not one.holds(counts)]
            if not broken:
                break
            raised = list(counts)
            for g in self._together(broken) - set(held):
                raised[g] += max(1, (self.sizes[g] - counts[g]) * step // _STEPS)
            counts = self._tied([min(n, size) for n, size in zip(raised, self.sizes, strict=True)], held)
        return counts

    def _together(self, broken: Sequence[Condition]) -> set[int]:
        """Return the groups of conditions, and those that ties bind to them."""
        found = {g for one in broken for g in one.groups}
        return found.union(*(t.powers for t in self.ties if t.derived in found))

    def _tied(self, wanted: Sequence[int], held: Collection[int]) -> list[int]:
        counts = list(wanted)
        for g, multiple in self.multiples.items():
            counts[g] = min(max(counts[g] // multiple, 1) * multiple, self.sizes[g])
        return satisfied(counts, self.sizes, self.ties, held)


def satisfied(counts: list[int], sizes: list[int], ties: list[Monomials], held: Collection[int] = ()) -> list[int]:
    """Return counts that satisfy every tie: derived groups follow; where they do not divide, denominators are held at
    full size (unless given in ``held``) and drivers rounded down to a multiple that divides, or up to the first."""
    counts = list(counts)
    if _follow(counts, sizes, ties):
        return counts
    for tie in ties:
        for g, power in tie.powers.items():
            if power < 0 and g not in held:
                counts[g] = sizes[g]
    for g, step in _steps(counts, ties).items():
        counts[g] = min(max(counts[g] // step * step, step), sizes[g])
    if _follow(counts, sizes, ties):
        return counts
    for tie in ties:
        for g in (tie.derived, *tie.powers):
            counts[g] = sizes[g]
    return counts


def _follow(counts: list[int], sizes: list[int], ties: list[Monomials]) -> bool:
    for tie in ties:
        value = tie.coefficient
        for g, power in tie.powers.items():
            value *= Fraction(counts[g]) ** power
        if value.denominator != 1 or not 1 <= value <= sizes[tie.derived]:
            return False
        counts[tie.derived] = int(value)
    return True


def _steps(counts: list[int], ties: list[Monomials]) -> dict[int, int]:
    """Return ``{driver: the multiple it must be}`` with every other factor as it is."""
    steps: dict[int, int] = {}
    for tie in ties:
        for g, power in tie.powers.items():
            if power != 1:
                continue
            rest = tie.coefficient
            for other, p in tie.powers.items():
                if other != g:
                    rest *= Fraction(counts[other]) ** p
            steps[g] = lcm(steps.get(g, 1), rest.denominator // gcd(rest.numerator, rest.denominator))
    return steps
