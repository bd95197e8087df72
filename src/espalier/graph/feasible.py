"""Counts that satisfy every tie."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

from .units import Why


@dataclass
class Monomials:
    """derived = coefficient * product of drivers ** power, by group number."""

    derived: int
    coefficient: Fraction
    powers: dict[int, int]
    why: Why


def feasible(counts: list[int], sizes: list[int], ties: list[Monomials], held: Collection[int] = ()) -> list[int]:
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
