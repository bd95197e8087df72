"""Sizes: Python ints and floats that remember where they came from.

While a model is traced, the ints in its modules' attributes and in tensor shapes are ``Size`` objects: ordinary ints
whose arithmetic also builds an expression tree. Every size that the model's Python passes to an operator is then an
equation between attributes, tensor dimensions and the axes that the operator makes.

    ("const", v)   ("attr", module, path)   ("dim", value, d)   (operator, left, right)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

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
        plain = apply(_plain(left), _plain(right))
        expr = (symbol, expr_of(left), expr_of(right))
        if isinstance(plain, int) and not isinstance(plain, bool):
            return Size(plain, expr)
        return Real(plain, expr) if isinstance(plain, float) else plain

    return method


def _plain(value: Any) -> int | float:
    if isinstance(value, Size):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, Real) else value


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
    comparisons: list[tuple[Expr, Expr]] | None = None  # equalities that the model's Python found true

    def __new__(cls, value: int, expr: Expr) -> Size:
        made = super().__new__(cls, value)
        made.expr = expr
        return made

    def __eq__(self, other: object) -> bool:
        same = int.__eq__(self, other) if not isinstance(other, float) else float(int(self)) == other
        if same is True and isinstance(other, Size) and Size.comparisons is not None and self.expr != other.expr:
            Size.comparisons.append((self.expr, other.expr))
        return same is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __deepcopy__(self, memo: dict) -> Size:
        return self

    def __reduce__(self) -> tuple:
        return (int, (int.__int__(self),))


for _name, _symbol in {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "floordiv": "//",
    "truediv": "/",
    "mod": "%",
    "pow": "**",
}.items():
    for _kind in (Size, Real):
        setattr(_kind, f"__{_name}__", _tagged(_symbol))
        setattr(_kind, f"__r{_name}__", _tagged(_symbol, swap=True))
for _kind in (Size, Real):
    type.__setattr__(_kind, "__neg__", lambda self: self * -1)


class track_math:
    """While entered, ``math.sqrt`` and ``math.prod`` keep provenance."""

    def __enter__(self) -> None:
        self._sqrt, self._prod = math.sqrt, math.prod
        math.sqrt = lambda x: x**0.5 if isinstance(x, Size | Real) and x >= 0 else self._sqrt(x)
        math.prod = self._tracked_prod

    def _tracked_prod(self, values: Any, *, start: Any = 1) -> Any:
        items = list(values)
        if not any(isinstance(v, Size | Real) for v in items):
            return self._prod(items, start=start)
        result = start
        for value in items:
            result = value * result
        return result

    def __exit__(self, *_: object) -> None:
        math.sqrt, math.prod = self._sqrt, self._prod


def evaluate(expr: Expr, leaf: Callable[[Expr], int | float]) -> int | float:
    """Return the value of an expression, with ``leaf`` giving the value of ``attr`` and ``dim`` leaves."""
    kind = expr[0]
    if kind == "const":
        return expr[1]
    if kind in ("attr", "dim"):
        return leaf(expr)
    return OPERATORS[kind](evaluate(expr[1], leaf), evaluate(expr[2], leaf))


def leaves(expr: Expr) -> Iterator[Expr]:
    """Yield the ``attr`` and ``dim`` leaves of an expression."""
    if expr[0] in ("attr", "dim"):
        yield expr
    elif expr[0] != "const":
        yield from leaves(expr[1])
        yield from leaves(expr[2])


def describe(expr: Expr) -> str:
    """Return an expression in words: ``layers.0.dim // layers.0.heads``."""
    kind = expr[0]
    if kind == "const":
        return str(expr[1])
    if kind == "attr":
        return ".".join([*([expr[1]] if expr[1] else []), *map(str, expr[2])])
    if kind == "dim":
        return f"size {expr[2]} of value {expr[1]}"
    return f"({describe(expr[1])} {kind} {describe(expr[2])})"
