"""Ties: Python's equations between attributes and group sizes, solved symbolically.

Each equation says *expression(attributes, sizes) = kept count*. Attributes that some equation determines become
polynomials in group sizes (what the cut will write into them); the others keep their values. What remains are
equations between group sizes: a monomial one ties one group to the others (head_dim = embed / heads). Where one side
is a sum (embed = row table + column table), its parts keep equal shares and are tied to each other; any other equation
freezes the groups in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from ..recording.sizes import FUNCTIONS, OPERATORS, ROUNDINGS, Expr, describe, leaves
from .feasible import Monomials
from .groups import Partition
from .inference import Axes, Equation
from .polynomial import Poly
from .units import Why


@dataclass
class Solution:
    """What the equations mean.

    Attributes:
        attributes: ``{(module, path): polynomial}`` to write after a cut.
        ties: derived groups, in terms of drivers only.
        refused: ``(groups, why)`` that must freeze for the equations to hold.
    """

    attributes: dict[tuple, Poly] = field(default_factory=dict)
    ties: list[Monomials] = field(default_factory=list)
    refused: list[tuple[set[int], Why]] = field(default_factory=list)


Pending = list[tuple[Poly, Poly, Why]]


def solve(
    axes: Axes, found: Partition, originals: dict[tuple, int], extra: list[tuple[bool, Expr, Expr, Why]]
) -> Solution:
    """Solve all equations; ``originals`` are the attributes' values, ``extra`` what else must stay equal."""
    solution = Solution()
    pending: list[tuple[Poly | None, Poly | None, Why]] = [
        (_side(axes, found, e.left, e.training), found.count(e.right), _name(e)) for e in axes.equations
    ]
    for training, left, right, why in extra:
        pending.append((_side(axes, found, left, training), _side(axes, found, right, training), why))
    opaque = [(a, b, w) for a, b, w in pending if a is None or b is None]
    clear = _distinct([(a, b, w) for a, b, w in pending if a is not None and b is not None and a != b])
    for left, right, why in opaque:
        _refuse(solution, left, right, why)
    for e in axes.equations:
        if not isinstance(e.left, np.ndarray) and _side(axes, found, e.left, e.training) is None:
            touched = _groups_in(axes, found, e.left, e.training)
            if touched:
                solution.refused.append((touched, _name(e)))
    _ties(_attributes(clear, solution, originals), solution, found.sizes)
    return solution


def _distinct(pending: Pending) -> Pending:
    """Drop equations that say the same again: batch and token sizes recur in every block."""
    kept = {(frozenset(a.terms.items()), frozenset(b.terms.items())): (a, b, w) for a, b, w in reversed(pending)}
    return list(kept.values())[::-1]


def renumbered(solution: Solution, number: dict[int, int]) -> Solution:
    """Return the solution with its groups numbered anew."""
    ties = [
        Monomials(number[t.derived], t.coefficient, {number[g]: p for g, p in t.powers.items()}, t.why)
        for t in solution.ties
    ]
    attributes = {
        key: Poly({tuple(sorted(((number[s], p) for s, p in m), key=repr)): c for m, c in poly.terms.items()})  # type: ignore[index]
        for key, poly in solution.attributes.items()
    }
    return Solution(attributes, ties, [])


def _name(equation: Equation) -> Why:
    if isinstance(equation.left, np.ndarray):
        return equation.why
    return Why(f"Python computes its size as {describe(equation.left)}", equation.why.source)


def _groups_in(axes: Axes, found: Partition, expr: Expr, training: bool) -> set[int]:
    groups: set[int] = set()
    for leaf in leaves(expr):
        if leaf[0] == "dim":
            groups |= {int(s) for s in found.count(axes.values[training][leaf[1]][leaf[2]]).symbols()}  # type: ignore[arg-type]
    return groups


def _side(axes: Axes, found: Partition, expr: Expr | np.ndarray, training: bool) -> Poly | None:
    """Return an expression as a polynomial in groups and attributes, None where it is not one."""
    if isinstance(expr, np.ndarray):
        return found.count(expr)
    kind = expr[0]
    if kind == "const":
        return Poly.const(Fraction(expr[1])) if isinstance(expr[1], int | float) else None
    if kind == "attr":
        return Poly.symbol(expr)
    if kind == "dim":
        return found.count(axes.values[training][expr[1]][expr[2]])
    if kind in ROUNDINGS or kind in FUNCTIONS:
        inner = _side(axes, found, expr[1], training)
        return _whole(kind, inner) if inner is not None else None
    left, right = _side(axes, found, expr[1], training), _side(axes, found, expr[2], training)
    if left is None or right is None:
        return None
    return _apply(kind, left, right)


def _whole(kind: str, inner: Poly) -> Poly | None:
    """Return a polynomial rounded where rounding does nothing to it, or what a number gives."""
    if not inner.symbols():
        return Poly.const(Fraction((ROUNDINGS.get(kind) or FUNCTIONS[kind])(inner.value({}))))
    if kind in FUNCTIONS:
        return None
    return inner if all(c.denominator == 1 and all(p > 0 for _, p in m) for m, c in inner.terms.items()) else None


def _apply(kind: str, left: Poly, right: Poly) -> Poly | None:
    if kind == "+":
        return left + right
    if kind == "-":
        return left - right
    if kind == "*":
        return left * right
    if kind in ("//", "/"):
        return left.over(right)
    if not left.symbols() and not right.symbols():
        return Poly.const(Fraction(OPERATORS[kind](int(left.value({})), int(right.value({})))))
    return None


def _is_attr(symbol: Hashable) -> bool:
    return isinstance(symbol, tuple)


def _attributes(pending: Pending, solution: Solution, originals: dict[tuple, int]) -> Pending:
    """Solve for attributes, bare ones first, then whatever determines one, until nothing changes."""
    known: dict[Hashable, Poly] = {}
    for bare in (True, False):
        progress = True
        while progress:
            progress = False
            rest: Pending = []
            for left, right, why in pending:
                a, b = _known(left, known), _known(right, known)
                if a is None or b is None:
                    _refuse(solution, left, right, why)
                    continue
                attr, poly = _isolate(a, b, bare)
                if attr is None or poly is None:
                    rest.append((a, b, why))
                    continue
                known[attr] = poly
                progress = True
            pending = rest
    fixed: Pending = []
    for left, right, why in pending:
        a, b = _fixed(left, originals), _fixed(right, originals)
        if a is None or b is None:
            _refuse(solution, left, right, why)
        else:
            fixed.append((a, b, why))
    for attr, poly in known.items():
        final = _fixed(poly, originals)
        if final is not None and final.symbols():
            solution.attributes[attr[1], attr[2]] = final  # type: ignore[index]
    return fixed


def _known(poly: Poly, known: dict[Hashable, Poly]) -> Poly | None:
    result: Poly | None = poly
    for symbol in [s for s in poly.symbols() if s in known]:
        result = result.substitute(symbol, known[symbol]) if result is not None else None
    if result is not None and any(s in known for s in result.symbols()):
        return _known(result, known)
    return result


def _fixed(poly: Poly, originals: dict[tuple, int]) -> Poly | None:
    result: Poly | None = poly
    for symbol in [s for s in poly.symbols() if _is_attr(s)]:
        value = originals[symbol[1], symbol[2]]  # type: ignore[index]
        result = result.substitute(symbol, Poly.const(value)) if result is not None and value else None
    return result


def _isolate(a: Poly, b: Poly, bare: bool) -> tuple[Hashable | None, Poly | None]:
    """Solve a = b for its only attribute."""
    attrs = [s for s in a.symbols() | b.symbols() if _is_attr(s)]
    if len(attrs) != 1:
        return None, None
    attr = attrs[0]
    if bare:
        if a == Poly.symbol(attr) and attr not in b.symbols():
            return attr, b
        return None, None
    difference = a - b
    holding = {m: c for m, c in difference.terms.items() if dict(m).get(attr)}
    if len(holding) != 1:
        return None, None
    ((monomial, c),) = holding.items()
    power = dict(monomial)[attr]
    factor = Poly({tuple((s, p) for s, p in monomial if s != attr): c})
    rest = Poly({m: -x for m, x in difference.terms.items() if m not in holding})
    if power == 1:
        return attr, rest.over(factor)
    return (attr, factor.over(rest)) if power == -1 else (None, None)


def _refuse(solution: Solution, left: Poly | None, right: Poly | None, why: Why) -> None:
    symbols = (left.symbols() if left else set()) | (right.symbols() if right else set())
    groups = {s for s in symbols if isinstance(s, int)}
    if groups:
        solution.refused.append((groups, why))


def _ties(pending: Pending, solution: Solution, sizes: list[int]) -> None:
    frequency: Counter = Counter()
    for a, b, _ in pending:
        frequency.update(a.symbols() | b.symbols())
    queue = [(a, b, why, True) for a, b, why in pending if a != b]
    while queue:
        a, b, why, whole = queue.pop(0)
        for tie in solution.ties:
            a, b = (_follow_tie(p, tie) for p in (a, b))
        if a is None or b is None or a == b:
            if a is None or b is None:
                _refuse(solution, a, b, why)
            continue
        if whole and (shares := list(_shares(a - b, sizes))):
            queue[:0] = [*((x, y, why, False) for x, y in shares), (a, b, why, False)]
            continue
        ratio = _ratio(a - b)
        tie = _tie(ratio, frequency, sizes, why) if ratio is not None else None
        if tie is None:
            _refuse(solution, a, b, why)
            continue
        _substitute(solution, tie)
        solution.ties.append(tie)


def _shares(difference: Poly, sizes: list[int]) -> Iterator[tuple[Poly, Poly]]:
    """Yield equations by which the parts of each sum in a difference keep the shares that they have in the network."""
    if () in difference.terms:
        return
    for sign in (1, -1):
        parts = [Poly({m: c * sign}) for m, c in difference.terms.items() if c * sign > 0]
        for part in parts[1:]:
            yield part * Poly.const(parts[0].value(sizes)), parts[0] * Poly.const(part.value(sizes))


def _follow_tie(poly: Poly | None, tie: Monomials) -> Poly | None:
    if poly is None or tie.derived not in poly.symbols():
        return poly
    return poly.substitute(tie.derived, Poly({tuple(sorted(tie.powers.items(), key=repr)): tie.coefficient}))


def _ratio(difference: Poly) -> Poly | None:
    """Write a difference of two monomials that is zero as a ratio that is one."""
    if len(difference.terms) != 2:
        return None
    (m, c), (n, d) = difference.terms.items()
    return Poly({m: -c}).over(Poly({n: d})) if c * d < 0 else None


def _tie(ratio: Poly, frequency: Counter, sizes: list[int], why: Why) -> Monomials | None:
    """Turn ``ratio = 1`` into a tie of its rarest, then largest, group."""
    ((monomial, c),) = ratio.terms.items()
    able = [(g, p) for g, p in monomial if abs(p) == 1]
    if not able or len(monomial) < 2:
        return None
    derived, power = min(able, key=lambda gp: (frequency[gp[0]], -sizes[gp[0]], gp[0]))  # type: ignore[index]
    powers = {g: -p * power for g, p in monomial if g != derived}
    return Monomials(derived, Fraction(1) / c if power == 1 else c, powers, why)  # type: ignore[arg-type]


def _substitute(solution: Solution, new: Monomials) -> None:
    for tie in solution.ties:
        power = tie.powers.pop(new.derived, 0)
        if power:
            tie.coefficient *= new.coefficient**power
            for g, p in new.powers.items():
                tie.powers[g] = tie.powers.get(g, 0) + p * power
            tie.powers = {g: p for g, p in tie.powers.items() if p}
