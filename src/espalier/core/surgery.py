"""What a cut does to a model, as plain data with indices relative to the original architecture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROOFS = ("float64", "float32", "shapes")  # what a cut can be proved in, the strictest first
NOT_PROVED = "not proved"


@dataclass(frozen=True)
class Slice:
    """Keep these positions of one tensor dimension."""

    tensor: str
    dim: int
    keep: tuple[int, ...]
    size: int  # of the dimension before the slice


@dataclass(frozen=True)
class SetAttribute:
    """Set a Python attribute of a module: ``path`` walks from the module through attributes and tuple indices."""

    module: str
    path: tuple[str | int, ...]
    value: int | float | bool | tuple


@dataclass(frozen=True)
class Surgery:
    """The slices and attributes of one or several composed cuts.

    Attributes:
        slices: ``{(tensor, dim): Slice}``.
        attributes: ``{(module, path): SetAttribute}``.
    """

    slices: Mapping[tuple[str, int], Slice] = field(default_factory=dict)
    attributes: Mapping[tuple[str, tuple], SetAttribute] = field(default_factory=dict)

    def then(self, later: Surgery) -> Surgery:
        """Return this surgery followed by ``later``, whose indices are relative to this one's result."""
        slices = dict(self.slices)
        for key, after in later.slices.items():
            before = slices.get(key)
            keep = after.keep if before is None else tuple(before.keep[i] for i in after.keep)
            slices[key] = Slice(*key, keep, before.size if before else after.size)
        return Surgery(slices, {**self.attributes, **later.attributes})

    def since(self, earlier: Surgery) -> Surgery:
        """Return what this surgery does after ``earlier``, with indices relative to that one's result.

        ``earlier.then(self.since(earlier))`` slices as this surgery does.

        Raises:
            ValueError: this surgery keeps what ``earlier`` cut.
        """
        slices = {}
        for key in {**self.slices, **earlier.slices}:
            before, after = earlier.slices.get(key), self.slices.get(key)
            if before is None:
                slices[key] = self.slices[key]
                continue
            place = {position: index for index, position in enumerate(before.keep)}
            kept = range(before.size) if after is None else after.keep
            lost = next((position for position in kept if position not in place), None)
            if lost is not None:
                raise ValueError(f"position {lost} of {key[0]!r}, dimension {key[1]}, was cut before")
            slices[key] = Slice(*key, tuple(place[position] for position in kept), len(before.keep))
        attributes = {k: v for k, v in self.attributes.items() if earlier.attributes.get(k) != v}
        return Surgery(slices, attributes)

    def to_data(self) -> list[dict[str, Any]]:
        """Return an ordered list of JSON-ready operations."""
        cuts = [
            {"op": "slice", "tensor": s.tensor, "dim": s.dim, "keep": list(s.keep), "size": s.size}
            for s in self.slices.values()
        ]
        sets = [
            {"op": "set", "module": a.module, "path": list(a.path), "value": a.value} for a in self.attributes.values()
        ]
        return cuts + sets

    @classmethod
    def from_data(cls, data: list[dict[str, Any]]) -> Surgery:
        """Read what ``to_data`` wrote, and nothing that it would not write; JSON lists become tuples.

        Raises:
            KeyError, TypeError, ValueError: the data is foreign.
        """
        slices, attributes = {}, {}
        for item in data:
            if item["op"] == "slice":
                keep = tuple(_count(i) for i in _list(item["keep"]))
                one = Slice(_text(item["tensor"]), _count(item["dim"]), keep, _count(item["size"]))
                slices[one.tensor, one.dim] = one
            elif item["op"] == "set":
                path = tuple(p if isinstance(p, str) else _count(p) for p in _list(item["path"]))
                one = SetAttribute(_text(item["module"]), path, _value(item["value"]))
                attributes[one.module, one.path] = one
            else:
                raise ValueError(f"unknown operation {item['op']!r}")
        return cls(slices, attributes)


_LARGEST = 2**63 - 1  # sizes are int64 everywhere below Python


def _list(item: Any) -> list[Any]:
    if not isinstance(item, list):
        raise TypeError(f"{item!r} is no list")
    return item


def _text(item: Any) -> str:
    if not isinstance(item, str):
        raise TypeError(f"{item!r} is no text")
    return item


def _count(item: Any) -> int:
    """A position, a dimension or a size; negative ones are looked at where the tensor is known."""
    if type(item) is not int or abs(item) > _LARGEST:
        raise TypeError("a position or size is no whole number of 64 bits")
    return item


def _value(item: Any) -> Any:
    """What an attribute may be set to: a number, a bool, or a list of these."""
    if isinstance(item, list | tuple):
        return tuple(_value(one) for one in item)
    if isinstance(item, bool) or (isinstance(item, float) and math.isfinite(item)):
        return item
    if type(item) is not int:
        raise TypeError(f"{item!r} is no number, bool or list of these")
    return _count(item)
