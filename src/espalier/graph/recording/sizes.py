"""Sizes: Python ints and floats that remember where they came from.

While a model is traced, the ints in its modules' attributes and in tensor shapes are ``Size`` objects: ordinary ints
whose arithmetic also builds an expression tree. Every size that the model's Python passes to an operator is then an
equation between attributes, tensor dimensions and the axes that the operator makes.

    ("const", v)   ("attr", module, path)   ("dim", value, d)   (operator, left, right)   (rounding or function, inner)

What the model's Python decides by a size is heard too (``Heard``): a comparison that a cut turns round, or a size that
becomes a bare number, is something that a cut may change and that no equation shows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .source_lines import called_by_torch, source_line

Expr = tuple  # see the module's docstring

OPERATORS: dict[str, Callable] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "/": operator.truediv,
    "%": operator.mod,
    "**": operator.pow,
    "max": max,
    "min": min,
}
ROUNDINGS: dict[str, Callable] = {"ceil": math.ceil, "floor": math.floor, "trunc": math.trunc, "round": round}
FUNCTIONS: dict[str, Callable] = {name: getattr(math, name) for name in ("log", "log1p", "log2", "log10", "exp")}
COMPARISONS: dict[str, Callable] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass
class Heard:
    """What the model's Python did with sizes, each with ``file:line``.

    Attributes:
        compared: ``{(symbol, left, right, outcome): source}``.
        checks: those of ``compared`` that PyTorch's own Python made: it checks its arguments.
        looped: ``{(size, value): source}`` that a ``range`` counted: the record holds every turn of the loop.
        covered: ``{(bound, size): source}`` of slices that took all of a dimension, for which no operator ran.
        lost: ``{(size, value): source}`` turned into bare numbers (``float(width)``): what follows is unknown.
    """

    compared: dict[tuple[str, Expr, Expr, bool], str] = field(default_factory=dict)
    checks: set[tuple[str, Expr, Expr, bool]] = field(default_factory=set)
    looped: dict[tuple[Expr, float], str] = field(default_factory=dict)
    covered: dict[tuple[Expr, Expr], str] = field(default_factory=dict)
    lost: dict[tuple[Expr, float], str] = field(default_factory=dict)

    def comparison(self, symbol: str, left: Any, right: Any, outcome: bool) -> None:
        """Note a comparison, once."""
        key = (symbol, expr_of(left), expr_of(right), outcome)
        if key[1] != key[2] and key not in self.compared:
            self.compared[key] = source_line()
            if called_by_torch(depth=2):
                self.checks.add(key)

    def note(self, where: dict[tuple[Expr, float], str], size: Size | Real) -> None:
        """Note a size among ``looped`` or ``lost``, once."""
        key = (size.expr, plain(size))
        if key not in where:
            where[key] = source_line()


def const(value: Any) -> Expr:
    """Return the expression of a value without provenance."""
    return ("const", value)


def expr_of(value: Any) -> Expr:
    """Return the expression of any number."""
    return value.expr if isinstance(value, Size | Real) else const(value)


def _tagged(symbol: str, swap: bool = False) -> Callable:
    apply = OPERATORS[symbol]

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        left, right = (other, self) if swap else (self, other)
        value = apply(plain(left), plain(right))
        expr = (symbol, expr_of(left), expr_of(right))
        if isinstance(value, int) and not isinstance(value, bool):
            return Size(value, expr)
        return Real(value, expr) if isinstance(value, float) else value

    return method


def plain(value: Any) -> Any:
    """Return a number without its provenance; ``int(size)`` would be heard as the model's own doing."""
    if isinstance(value, Size):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, Real) else value


def _compared(symbol: str) -> Callable:
    apply = COMPARISONS[symbol]

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, int | float):
            return NotImplemented
        outcome = apply(plain(self), plain(other))
        if Size.heard is not None:
            Size.heard.comparison(symbol, self, other, outcome)
        return outcome

    return method


def _rounded(name: str) -> Callable:
    apply = ROUNDINGS[name]

    def method(self: Any, *digits: int) -> Any:
        if digits:
            return apply(plain(self), *digits)
        return Size(apply(plain(self)), (name, self.expr))

    return method


def _bare(kind: type) -> Callable:
    def method(self: Any) -> Any:
        if Size.heard is not None:
            Size.heard.note(Size.heard.lost, self)
        return kind(plain(self))

    return method


def _is_true(self: Any) -> bool:
    outcome = bool(plain(self))
    if Size.heard is not None:
        Size.heard.comparison("!=", self, 0, outcome)
    return outcome


class Real(float):
    """A float that remembers the sizes it was computed from (``head_dim ** -0.5``)."""

    expr: Expr

    def __new__(cls, value: float, expr: Expr) -> Real:
        made = super().__new__(cls, value)
        made.expr = expr
        return made

    def __deepcopy__(self, memo: dict) -> Real:
        return self

    def __reduce__(self) -> tuple:
        return (float, (float.__float__(self),))


class Size(int):
    """An int that remembers where it came from."""

    expr: Expr
    heard: Heard | None = None  # of the capture that goes on

    def __new__(cls, value: int, expr: Expr) -> Size:
        made = super().__new__(cls, value)
        made.expr = expr
        return made

    def __deepcopy__(self, memo: dict) -> Size:
        return self

    def __reduce__(self) -> tuple:
        return (int, (int.__int__(self),))


_ARITHMETIC = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "truediv": "/", "mod": "%", "pow": "**"}
_ORDER = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
for _kind in (Size, Real):
    for _name, _symbol in _ARITHMETIC.items():
        setattr(_kind, f"__{_name}__", _tagged(_symbol))
        setattr(_kind, f"__r{_name}__", _tagged(_symbol, swap=True))
    for _name, _symbol in _ORDER.items():
        setattr(_kind, f"__{_name}__", _compared(_symbol))
    for _name in ROUNDINGS:
        setattr(_kind, f"__{_name}__", _rounded(_name))
    _kind.__hash__ = (int if _kind is Size else float).__hash__  # type: ignore[assignment]
    _kind.__neg__ = lambda self: self * -1  # type: ignore[assignment]
    _kind.__divmod__ = lambda self, other: (self // other, self % other)  # type: ignore[assignment]
    _kind.__bool__ = _is_true  # type: ignore[assignment]
    _kind.__int__, _kind.__float__ = _bare(int), _bare(float)  # type: ignore[assignment]


def evaluate(expr: Expr, leaf: Callable[[Expr], int | float]) -> int | float:
    """Return the value of an expression, with ``leaf`` giving the value of ``attr`` and ``dim`` leaves."""
    kind = expr[0]
    if kind == "const":
        return expr[1]
    if kind in ("attr", "dim"):
        return leaf(expr)
    if kind in ROUNDINGS or kind in FUNCTIONS:
        return (ROUNDINGS.get(kind) or FUNCTIONS[kind])(evaluate(expr[1], leaf))
    return OPERATORS[kind](evaluate(expr[1], leaf), evaluate(expr[2], leaf))


def leaves(expr: Expr) -> Iterator[Expr]:
    """Yield the ``attr`` and ``dim`` leaves of an expression."""
    if expr[0] in ("attr", "dim"):
        yield expr
    elif expr[0] != "const":
        for part in expr[1:]:
            yield from leaves(part)


def anonymous(expr: Expr) -> Expr:
    """Return an expression without the numbers of values, which differ from record to record."""
    if expr[0] == "dim":
        return ("dim", expr[2])
    return expr if expr[0] in ("const", "attr") else (expr[0], *map(anonymous, expr[1:]))


def describe(expr: Expr) -> str:
    """Return an expression in words: ``layers.0.dim // layers.0.heads``."""
    kind = expr[0]
    if kind == "const":
        return str(expr[1])
    if kind == "attr":
        return ".".join([*([expr[1]] if expr[1] else []), *map(str, expr[2])])
    if kind == "dim":
        return f"size {expr[2]} of value {expr[1]}"
    if kind in ROUNDINGS or kind in FUNCTIONS:
        return f"{kind}({describe(expr[1])})"
    return f"({describe(expr[1])} {kind} {describe(expr[2])})"
