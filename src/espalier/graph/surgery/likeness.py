"""Likeness: how a module that was rebuilt from its config differs from the cut one, before the cut is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core import Slice, Surgery
from ..recording.sizes import COMPARISONS, Expr, Size, evaluate, leaves
from ..recording.skeleton import public_sizes
from ..recording.tensors import every_name, named_tensors
from .describing import Key
from .operate import slice_tensor

if TYPE_CHECKING:
    from ..graph import Graph


@dataclass(eq=False)
class Part:
    """A module with a config, in a model that is to be cut.

    Attributes:
        path: its dotted name in the model.
        module: itself, uncut.
        first: ``{id of a tensor: its first name in the model}``.
    """

    graph: Graph
    surgery: Surgery
    path: str
    module: nn.Module
    first: dict[int, str]

    @cached_property
    def sizes(self) -> dict[Key, int]:
        """The public ints of the whole model after the surgery."""
        sizes = dict(self.graph.originals)
        for (module, path), change in self.surgery.attributes.items():
            items = items_in(path, change.value)
            sizes.update({(module, at): int(item) for at, item in items if not isinstance(item, tuple)})
        return sizes

    def name(self, inner: str) -> str:
        """Return the name in the model of what ``inner`` names in the module."""
        return ".".join(filter(None, (self.path, inner)))

    def cuts(self, tensor: Tensor) -> dict[int, Slice]:
        """Return what the surgery slices of one of the module's tensors, by dimension."""
        first = self.first[id(tensor)]
        slices = ((d, self.surgery.slices.get((first, d))) for d in range(tensor.dim()))
        return {d: one for d, one in slices if one is not None}

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the shape of one of the module's tensors after the surgery."""
        cuts = self.cuts(tensor)
        return tuple(len(cuts[d].keep) if d in cuts else n for d, n in enumerate(tensor.shape))

    def must_be(self, key: Key) -> bool:
        """Whether the model's Python, or a layer's own weights, say what an attribute is after the surgery."""
        return key in self._computed or key in self.surgery.attributes

    def turned(self, values: Mapping[Key, int]) -> set[Key]:
        """Return the attributes that would turn a decision of the model's Python if they had these values."""
        after = {**self.sizes, **values}
        sides = (
            (symbol, evaluate(left, lambda e: after[e[1:]]), evaluate(right, lambda e: after[e[1:]]), outcome)
            for symbol, left, right, outcome in self._decisions
        )
        return {
            key
            for decision, (symbol, left, right, outcome) in zip(self._decisions, sides, strict=True)
            if COMPARISONS[symbol](left, right) != outcome
            for key in _attributes(decision[1:3]) & values.keys()
        }

    @cached_property
    def _computed(self) -> set[Key]:
        """Attributes that Python computes sizes with, counts out in loops, or makes bare numbers of."""
        sizes = [e.left for e in self.graph.axes.equations if isinstance(e.left, tuple)]
        for heard in (record.heard for record in self.graph.records):
            sizes += [expr for expr, _ in (*heard.looped, *heard.lost)]
            sizes += [side for key in heard.compared if key not in self._decisions for side in key[1:3]]
        return _attributes(sizes)

    @cached_property
    def _decisions(self) -> list[tuple[str, Expr, Expr, bool]]:
        """Comparisons of attributes among themselves or with numbers."""
        compared = {key for record in self.graph.records for key in record.heard.compared}
        return [key for key in compared if all(leaf[0] == "attr" for side in key[1:3] for leaf in leaves(side))]


def same_shapes(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same tensors, by name and shape."""
    return {n: t.shape for n, t in every_name(module)} == {n: t.shape for n, t in every_name(other)}


@dataclass(eq=False)
class Likeness:
    """How a part's class, made from the config as it would be, differs from the part after the surgery.

    Attributes:
        part: what is to be cut.
        before: what its class makes of the config as it is; what differs already is of the user's own making.
        after: what its class makes of the config as it would be.
    """

    part: Part
    before: nn.Module
    after: nn.Module

    @cached_property
    def sizes(self) -> dict[str, str]:
        """``{tensor or attribute: how it differs}`` of sizes that are not shared."""
        part, given = self.part, {name: tuple(tensor.shape) for name, tensor in every_name(self.after)}
        found = {}
        for name, tensor in every_name(part.module):
            shape = part.shape(tensor)
            if given.get(name) != shape:
                found[part.name(name)] = f"{part.name(name)} has shape {shape}, the config gives {given.get(name)}"
        for key, value in self._ints.items():
            if part.must_be(key):
                found[dotted(key)] = f"{dotted(key)} is {part.sizes[key]}, the config gives {value}"
        return found

    @cached_property
    def followers(self) -> dict[Key, int]:
        """Ints that nothing computes with and that turn no decision, as the config gives them."""
        turned = self.part.turned(self._ints)
        return {key: value for key, value in self._ints.items() if not self.part.must_be(key) and key not in turned}

    @property
    def decisions(self) -> list[str]:
        """The ints with which the model's Python would decide otherwise."""
        return [
            f"Python compares {dotted(key)}, which is {self.part.sizes[key]}, and the config gives {value}"
            for key, value in self._ints.items()
            if key not in self.followers and not self.part.must_be(key)
        ]

    @property
    def values(self) -> list[str]:
        """What no surgery writes and the config gives otherwise: floats, private ints, unsaved tensors."""
        part = self.part
        own, old, new = (_unwritten(module) for module in (part.module, self.before, self.after))
        found = [
            f"{part.name('.'.join(key))} is {value:g}, the config gives {new[key]:g}"
            for key, value in own.items()
            if key in new and old.get(key) == value != new[key]
        ]
        tables, fresh = named_tensors(self.before), named_tensors(self.after)
        for name, tensor in _unsaved(part.module):
            cuts = part.cuts(tensor)
            known = name in tables and name in fresh and (cuts or _equal(tables[name], tensor))
            if known and not _equal(fresh[name], slice_tensor(tensor, cuts)):
                found.append(f"{part.name(name)} has other values when it is computed from the config")
        return found

    @cached_property
    def _ints(self) -> dict[Key, int]:
        """The public ints that differ, as the config gives them."""
        part = self.part
        old = {(part.name(module), path): value for (module, path), value in _ints(self.before).items()}
        new = {(part.name(module), path): value for (module, path), value in _ints(self.after).items()}
        return {
            key: value
            for key, value in new.items()
            if part.sizes.get(key, value) != value and old.get(key) == part.graph.originals.get(key)
        }


def _ints(module: nn.Module) -> dict[Key, int]:
    """Return every public int, tagged or not."""
    return {
        (path, key): int(item)
        for holder, name, path, at in public_sizes(module)
        for key, item in items_in(at, holder[name])
        if isinstance(item, int) and not isinstance(item, bool)
    }


def items_in(path: tuple, value: Any) -> list[tuple[tuple, Any]]:
    """Return ``(path, item)`` of a sequence's items, or of the value itself."""
    return [((*path, i), item) for i, item in enumerate(value)] if isinstance(value, list | tuple) else [(path, value)]


def _attributes(sizes: Iterable[Expr]) -> set[Key]:
    return {leaf[1:] for expr in sizes for leaf in leaves(expr) if leaf[0] == "attr"}


def dotted(key: Key) -> str:
    """Return an attribute's name."""
    return ".".join([*filter(None, (key[0],)), *map(str, key[1])])


def _unwritten(module: nn.Module) -> dict[tuple[str, str], float]:
    return {
        (path, name): float(value)
        for path, one in module.named_modules()
        for name, value in vars(one).items()
        if isinstance(value, float) or (name.startswith("_") and type(value) in (int, Size))
    }


def _unsaved(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors that a state_dict leaves out."""
    saved = module.state_dict(keep_vars=True)
    yield from ((name, tensor) for name, tensor in named_tensors(module).items() if name not in saved)


def _equal(given: Tensor, own: Tensor) -> bool:
    if given.is_meta or own.is_meta or given.shape != own.shape:
        return False
    given = given.to(device=own.device, dtype=own.dtype)
    return torch.allclose(given, own) if own.is_floating_point() else torch.equal(given, own)
