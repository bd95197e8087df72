"""Hearing: while a model is traced, what its Python does with sizes is kept or noted.

``math.sqrt``, ``math.prod``, ``math.log`` and their numpy twins would turn a ``Size`` into a bare number; while tracing
they keep its expression, also where the model's own modules imported them by name. What else ``math`` makes of a size
is a bare number, and is noted. ``range`` counts a size out into single turns
that the record holds one by one: in the model's own modules it says so.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from torch import nn

from .sizes import FUNCTIONS, Heard, Real, Size
from .sizes import plain as bare
from .source_lines import ENGINE, TORCH

_DECIDE = {"isclose", "isfinite", "isinf", "isnan", "ceil", "floor", "trunc", "fsum", "sumprod"}  # or keep provenance


@contextmanager
def hearing(model: nn.Module) -> Iterator[Heard]:
    """Hear what the Python of ``model`` does with sizes."""
    before, Size.heard = Size.heard, Heard()
    try:
        with ExitStack() as stack:
            for owner in (math, np):
                for name, plain in _heard(owner):
                    stack.enter_context(patch.object(owner, name, _twin(name, plain)))
            for scope in _own_scopes(model):
                stack.enter_context(_listening(scope))
            yield Size.heard
    finally:
        Size.heard = before


def _own_scopes(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the global names of the model's own modules: those of its layers' packages, PyTorch's left out."""
    packages = {kind.__module__.partition(".")[0] for kind in {type(m) for m in model.modules()}}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in packages - {"torch"} and isinstance(vars(module).get("__name__"), str):
            if not str(vars(module).get("__file__") or "").startswith((ENGINE, TORCH)):
                yield vars(module)


@contextmanager
def _listening(scope: dict[str, Any]) -> Iterator[None]:
    """Put the hearing twins of ``range``, ``sqrt`` and ``prod`` into a module's names."""
    own: dict[str, Any] = {} if "range" in scope else {"range": _Range}
    own.update({name: _twin(name, plain) for name, plain in _PLAIN if scope.get(name) is plain})
    before = {name: scope[name] for name in own if name in scope}
    scope.update(own)
    try:
        yield
    finally:
        for name in own:
            del scope[name]
        scope.update(before)


class _RangeType(type):
    """Lets ``isinstance(x, range)`` mean what it says."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, range)


class _Range(metaclass=_RangeType):
    """``range``, noting the sizes that it counts."""

    def __new__(cls, *bounds: Any) -> Any:
        for bound in bounds:
            if isinstance(bound, Size) and Size.heard is not None:
                Size.heard.note(Size.heard.looped, bound)
        return range(*bounds)


def _heard(owner: ModuleType) -> Iterator[tuple[str, Callable]]:
    """Yield the functions of ``math`` or numpy that have a twin, by name."""
    names = {"sqrt", "prod", *FUNCTIONS} if owner is np else {*vars(math)} - _DECIDE
    for name in sorted(names):
        if not name.startswith("_") and callable(function := getattr(owner, name)):
            yield name, function


def _twin(name: str, plain: Callable) -> Callable:
    """Return a function that keeps the sizes it is given, or notes that it does not."""
    if name in FUNCTIONS:
        return _function(name, plain)
    return {"sqrt": _sqrt, "prod": _prod, "pow": _pow}.get(name, _losing)(plain)


def _function(name: str, plain: Callable) -> Callable:
    def function(x: Any, *base: Any, **named: Any) -> Any:
        if not isinstance(x, Size | Real) or named or len(base) > (name == "log"):
            return plain(x, *base, **named)
        result = Real(FUNCTIONS[name](bare(x)), (name, x.expr))
        return result / function(base[0]) if base else result

    return function


def _pow(plain: Callable) -> Callable:
    def power(x: Any, y: Any) -> Any:
        return (x * 1.0) ** y if isinstance(x, Size | Real) else plain(x, y)

    return power


def _losing(plain: Callable) -> Callable:
    def function(*args: Any, **named: Any) -> Any:
        for value in args:
            if isinstance(value, Size | Real) and Size.heard is not None:
                Size.heard.note(Size.heard.lost, value)
        return plain(*map(bare, args), **named)

    return function


def _sqrt(plain: Callable) -> Callable:
    def sqrt(x: Any, *more: Any, **named: Any) -> Any:
        return x**0.5 if isinstance(x, Size | Real) and x.real >= 0 else plain(x, *more, **named)

    return sqrt


def _prod(plain: Callable) -> Callable:
    def prod(values: Any, *more: Any, **named: Any) -> Any:
        if more or named.keys() - {"start"} or not isinstance(values, list | tuple):
            return plain(values, *more, **named)
        if not any(isinstance(v, Size | Real) for v in values):
            return plain(values, **named)
        result = named.get("start", 1)
        for value in values:
            result = value * result
        return result

    return prod


_PLAIN = [(name, function) for owner in (math, np) for name, function in _heard(owner)]
