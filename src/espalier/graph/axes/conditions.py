"""Conditions: what the model's Python found true of sizes, and a plan should leave so.

``if radix > 1:`` takes the other branch once a cut leaves one; ``width % 8 == 0`` may choose another kernel. The branch
that was not taken was never recorded, so planning stays where every such comparison comes out as it did. A plan of the
user's own may go further: then the proof decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..recording.record import Record
from ..recording.sizes import COMPARISONS, Expr, const, describe, evaluate, leaves
from .groups import Partition
from .inference import Axes
from .input_sizes import InputSizes
from .polynomial import Poly
from .ties import Solution
from .units import Why

_INVERSE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}


@dataclass(frozen=True, eq=False)
class Condition:
    """Something that Python decided by group sizes.

    Attributes:
        groups: their numbers.
        holds: ``holds(counts)``: whether it comes out as it did, for the kept counts of all groups.
        text: what was true, in words.
        source: ``file:line``.
    """

    groups: tuple[int, ...]
    holds: Callable[[Sequence[int]], bool]
    text: str
    source: str


def equalities(record: Record) -> Iterator[tuple[Expr, Expr, Why]]:
    """Yield what must stay equal: sizes that Python found equal, and sizes that a loop counted."""
    for (symbol, left, right, outcome), source in record.heard.compared.items():
        if _is_equality(symbol, left, right, outcome):
            yield left, right, Why(f"Python compares {describe(left)} with {describe(right)}", source)
    for (expr, value), source in record.heard.looped.items():
        yield expr, const(value), Why(f"a Python loop counts {describe(expr)}", source)


def _is_equality(symbol: str, left: Expr, right: Expr, outcome: bool) -> bool:
    equal = symbol == "==" if outcome else symbol == "!="
    return equal and "const" not in (left[0], right[0])


def conditions(
    axes: Axes, found: Partition, solution: Solution, originals: dict[tuple, int], records: Iterable[Record]
) -> tuple[Condition, ...]:
    """Return every comparison that some counts would turn round."""
    known = _Known(axes, found, solution, originals)
    result: dict[str, Condition] = {}
    for record in records:
        for (symbol, left, right, outcome), source in record.heard.compared.items():
            if not _is_equality(symbol, left, right, outcome):
                symbol = symbol if outcome else _INVERSE[symbol]
                one = known.condition(symbol, left, right, record.training, source)
                if one.groups and one.text not in result and _may_turn(one, found.sizes):
                    result[one.text] = one
    return tuple(result.values())


def losses(
    axes: Axes, found: Partition, solution: Solution, originals: dict[tuple, int], records: Iterable[Record]
) -> tuple[Condition, ...]:
    """Return the sizes that Python made bare numbers, as conditions that they keep their values."""
    known = _Known(axes, found, solution, originals)
    every = (
        known.condition("==", expr, const(value), record.training, source)
        for record in records
        for (expr, value), source in record.heard.lost.items()
    )
    return tuple(one for one in every if one.groups)


def input_notes(
    axes: Axes, found: Partition, solution: Solution, originals: dict[tuple, int], records: Sequence[Record]
) -> Iterator[str]:
    """Yield where Python compares a width with a size of the input: a cut holds to what the example made of it."""
    known, sizes = _Known(axes, found, solution, originals), InputSizes(axes, records, originals)
    for record in records:
        for key, source in record.heard.compared.items():
            symbol, left, right, _ = key
            if key not in record.heard.checks and any(sizes.moves(side, record.training) for side in (left, right)):
                if known.groups(left, record.training) | known.groups(right, record.training):
                    yield (
                        f"Python compares a width with a size of the input at {source} ({describe(left)} {symbol} "
                        f"{describe(right)}): plans leave it as the example has it; for an input of another size a cut "
                        "network may go the other way than the whole one"
                    )


def _may_turn(one: Condition, sizes: list[int]) -> bool:
    """Whether some count turns a condition of one group round; one of several groups always may."""
    group, *others = one.groups
    if others:
        return True
    return not all(one.holds([*sizes[:group], n, *sizes[group + 1 :]]) for n in range(1, sizes[group] + 1))


@dataclass(frozen=True, eq=False)
class _Known:
    """What expressions are worth under given counts."""

    axes: Axes
    found: Partition
    solution: Solution
    originals: dict[tuple, int]

    def condition(self, symbol: str, left: Expr, right: Expr, training: bool, source: str) -> Condition:
        compare = COMPARISONS[symbol]

        def holds(counts: Sequence[int]) -> bool:
            try:
                return compare(*(evaluate(side, lambda e: self.leaf(e, training, counts)) for side in (left, right)))
            except (ArithmeticError, ValueError):  # ValueError: the logarithm of nothing
                return False

        groups = self.groups(left, training) | self.groups(right, training)
        return Condition(tuple(sorted(groups)), holds, f"{describe(left)} {symbol} {describe(right)}", source)

    def poly(self, leaf: Expr, training: bool) -> Poly:
        if leaf[0] == "dim":
            return self.found.count(self.axes.values[training][leaf[1]][leaf[2]])
        return self.solution.attributes.get(leaf[1:]) or Poly.const(self.originals[leaf[1:]])

    def leaf(self, leaf: Expr, training: bool, counts: Sequence[int]) -> float:
        value = self.poly(leaf, training).value(counts)  # type: ignore[arg-type]
        return int(value) if value.denominator == 1 else float(value)

    def groups(self, expr: Expr, training: bool) -> set[int]:
        return {s for leaf in leaves(expr) for s in self.poly(leaf, training).symbols()}  # type: ignore[misc]
