"""Weights by patterns of their names: what is meant, and what is said of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from torch import nn

from ..core import UnknownNameError
from ..graph.masks import is_weight
from ..graph.recording.tensors import every_name, named_tensors
from .patterns import tester

T = TypeVar("T")


def weights_named(
    model: nn.Module, layers: Mapping[str, T], *, keep: Iterable[str] = (), only: Iterable[str] | None = None
) -> tuple[list[str], dict[str, T]]:
    """Return the weights that are meant, in the model's order, and ``{weight: what layers says of it}``.

    Args:
        model: whose parameters of two or more dimensions are weights.
        layers: ``{pattern: anything}`` of tensors or modules by name; where several match, the last.
        keep: patterns of what is not meant.
        only: patterns of what may be meant at all; all when None.

    Raises:
        UnknownNameError: a pattern matches no weight.
    """
    by_id = {id(tensor): name for name, tensor in named_tensors(model).items() if is_weight(tensor)}
    names = {name: by_id[id(tensor)] for name, tensor in every_name(model) if id(tensor) in by_id}
    wanted = set(names.values()) if only is None else _matched(names, only)
    wanted -= _matched(names, keep)
    said = {name: value for pattern, value in layers.items() for name in _matched(names, [pattern])}
    return [name for name in by_id.values() if name in wanted], said


def _matched(names: Mapping[str, str], patterns: Iterable[str]) -> set[str]:
    """Return the tensors that any of the patterns matches, under any of their names.

    Raises:
        UnknownNameError: a pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        test = tester(pattern)
        own = {first for name, first in names.items() if test(name)}
        if not own:
            hint = "Patterns match weights with two or more dimensions, and modules that hold some."
            raise UnknownNameError("pattern", pattern, names, hint)
        found |= own
    return found
