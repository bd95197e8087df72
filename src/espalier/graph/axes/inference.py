"""Inference: walk a record and give every dimension of every value its units.

Parameters, buffers and plain tensor attributes start with fresh units; inputs and constants have none; each operator's
rule (``rules/``) relates its operands' dimensions and returns its outputs'. An operator without a rule freezes what it
touches. Sizes that the model's Python passed become equations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core import Role
from ..recording.record import Op, Record, Ref, bind, walk
from ..recording.sizes import Expr, Size, leaves
from .input_sizes import Said
from .units import Dim, Units, Why, constant

Dims = list[Dim]


@dataclass(frozen=True, eq=False)
class Equation:
    """``left`` (an expression, or the count of a dimension) equals the kept count of ``right``."""

    left: Expr | Dim
    right: Dim
    training: bool
    why: Why


@dataclass(eq=False)
class Axes:
    """What inference over one or several records of a model found.

    Attributes:
        units: the arena.
        leaves: ``{tensor name: its dimensions}``, shared by all records.
        roles: ``{(tensor name, dim): role}``.
        values: ``{training: dimensions of every value}``.
        equations: what the model's Python demands.
        statistics: dimensions over which a statistic is taken, with the reason.
        multiples: dimensions whose size a kernel wants to be a multiple of something.
        said: what decides by sizes, for ``input_sizes``.
        implicit: ``(training, op index)`` of attention operators that derive their scale from the head dimension.
    """

    units: Units = field(default_factory=Units)
    leaves: dict[str, Dims] = field(default_factory=dict)
    roles: dict[tuple[str, int], Role] = field(default_factory=dict)
    values: dict[bool, list[Dims]] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)
    statistics: list[tuple[Dim, Why]] = field(default_factory=list)
    implicit: list[tuple[bool, int]] = field(default_factory=list)
    multiples: list[tuple[Dim, int]] = field(default_factory=list)
    places: dict[int, tuple[str, int]] = field(default_factory=dict)  # id(array) -> the tensor dimension it is
    given: set[int] = field(default_factory=set)  # id(array) of the dimensions of the model's inputs
    said: Said = field(default_factory=Said)


def infer(axes: Axes, record: Record, rule_for: Any, *, free_outputs: bool) -> None:
    """Add one record to ``axes``."""
    values: list[Dims] = [[] for _ in record.shapes]
    axes.values[record.training] = values
    axes.said.begin(record)
    for value, shape in enumerate(record.shapes):
        if value in record.names:
            values[value] = _leaf(axes, record.names[value], shape)
        else:
            values[value] = [constant(n) for n in shape]
    axes.given.update(id(dim) for value in record.inputs for dim in values[value])
    for index, op in enumerate(record.ops):
        call = Call(axes, record, op, index)
        try:
            outs = rule_for(op)(call)
        except (Refused, IndexError, KeyError, ValueError, TypeError, AttributeError) as refusal:
            outs = call.refuse(f"its rule does not cover this call: {refusal}")
        for value, dims in zip(op.outs, outs, strict=False):
            if value is not None and dims is not None:
                values[value] = _ones_are_constant(call, dims)
    if not free_outputs:
        for value in record.outputs:
            for dim in values[value]:
                axes.units.freeze(dim, Why("it is an output of the model"))


def _leaf(axes: Axes, name: str, shape: tuple[int, ...]) -> Dims:
    if name not in axes.leaves:
        axes.leaves[name] = [axes.units.fresh(n) if n > 1 else constant(n) for n in shape]
        for d, dim in enumerate(axes.leaves[name]):
            axes.places[id(dim)] = (name, d)
    return axes.leaves[name]


def _ones_are_constant(call: Call, dims: Dims) -> Dims:
    for d, dim in enumerate(dims):
        if len(dim) == 1 and dim.shape[1]:
            call.freeze(dim, "a piece of one channel may be broadcast")
            dims[d] = constant(1)
    return dims


class Refused(Exception):
    """A rule meets a case that it does not cover."""


class Call:
    """One operator call as a rule sees it: ``call["self"]`` is an argument, ``call.dims("self")`` its dimensions."""

    def __init__(self, axes: Axes, record: Record, op: Op, index: int) -> None:
        self.axes, self.record, self.op, self.index = axes, record, op, index
        self._bound: dict[str, Any] | None = None
        self._spoken: set[Expr] = set()

    def __getitem__(self, name: str) -> Any:
        if self._bound is None:
            self._bound = bind(self.op)
        return self._bound.get(name)

    def dims(self, name: str) -> Dims:
        """Return the dimensions of a tensor argument."""
        ref = self[name]
        return self.of(ref) if isinstance(ref, Ref) else []

    def of(self, ref: Ref) -> Dims:
        """Return the dimensions of a value."""
        return list(self.axes.values[self.record.training][ref.value])

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor argument."""
        return self.record.shapes[self[name].value]

    def out_shape(self, i: int = 0) -> tuple[int, ...]:
        """Return the shape of an output."""
        value = self.op.outs[i]
        return () if value is None else self.record.shapes[value]

    def is_read(self, i: int) -> bool:
        """Whether anything reads an output, the model's caller included."""
        return self.op.outs[i] in self.record.read

    def dim(self, name: str = "dim", of: str = "self") -> int:
        """Return a dimension argument, counted from the front."""
        rank = len(self.dims(of))
        return int(self[name] or 0) % max(rank, 1)

    def why(self, reason: str) -> Why:
        """Return a reason with this call's place in the model's source."""
        return Why(f"{reason} ({self.op.name.removeprefix('aten.')})", self.op.source)

    def freeze(self, dim: Dim, reason: str) -> None:
        """Freeze a dimension."""
        if dim.shape[1]:
            self.axes.units.freeze(dim, self.why(reason))

    def unify(self, a: Dim, b: Dim) -> None:
        """Make two dimensions the same."""
        if len(a) != len(b):
            raise Refused("sizes differ")
        if a.shape[1] or b.shape[1]:
            given = not self.axes.given.isdisjoint((id(a), id(b)))
            reason = "it reads the model's input" if given else "it must match an axis that no cut may change"
            self.axes.units.unify(a, b, self.why(reason))
            self.axes.said.match(a, b)

    def split(self, dim: Dim, *sizes: int) -> list[Dim]:
        """Split a dimension into factors."""
        return self.axes.units.split(dim, sizes, self.why("it is split unevenly"))

    def fresh(self, size: int) -> Dim:
        """Return a new axis."""
        return self.axes.units.fresh(size) if size > 1 else constant(size)

    def size(self, number: Any, dim: Dim) -> None:
        """State that Python passed ``number`` as the size of ``dim``; a literal freezes it."""
        if isinstance(number, Size):
            self._spoken.update(leaves(number.expr))
        else:
            if self.op.call == "" and not isinstance(self.op.func, str):  # a compiled function: its sizes are its own
                self.freeze(dim, "a compiled function gives its size")
            return
        if int(number) == -1:
            return
        self.axes.said.size(number, dim, self.record.training)
        if number.expr[0] == "const":
            self.freeze(dim, f"its size {int(number)} is written into the code")
            return
        kind, value, d = number.expr if number.expr[0] == "dim" else (None, 0, 0)
        if kind and self.axes.values[self.record.training][value][d] is dim:
            return
        why = self.why("Python computes its size")
        self.axes.equations.append(Equation(number.expr, dim, self.record.training, why))

    def bound(self, number: Any, dim: Dim) -> None:
        """State that ``number`` decides which positions of ``dim`` are meant, or where they go."""
        self.axes.said.bound(number, dim, self.record.training, self.op.source)

    def hold_numbers(self, numbers: Iterable[Any] = ()) -> None:
        """State that every number whose meaning no rule has told (a stride, a count, a place) must stay as it is."""
        for number in (*walk((self.op.args, self.op.kwargs)), *numbers):
            if not isinstance(number, Size) or not any(self._may_change(leaf) for leaf in leaves(number.expr)):
                continue
            self._spoken.update(leaves(number.expr))
            value, expr = int(number), number.expr
            if value < 0:
                value, expr = -value, ("*", expr, ("const", -1))
            why = self.why("Python counts with its size")
            self.axes.equations.append(Equation(expr, constant(value), self.record.training, why))

    def _may_change(self, leaf: Expr) -> bool:
        """Whether a cut could change a number's leaf, and no rule has said what it counts."""
        if leaf in self._spoken:
            return False
        return leaf[0] == "attr" or self.axes.values[self.record.training][leaf[1]][leaf[2]].shape[1] > 0

    def same_size(self, a: Dim, b: Dim) -> None:
        """State that two dimensions must keep the same number of positions."""
        self.axes.equations.append(Equation(a, b, self.record.training, self.why("it is cut into equal pieces")))

    def statistic(self, dim: Dim) -> None:
        """State that a statistic is taken over ``dim``: cutting it changes what its survivors compute."""
        if dim.shape[1]:
            self.axes.statistics.append((dim, self.why("a statistic is taken over it")))

    def role(self, dim: Dim, role: Role) -> None:
        """Give a tensor dimension its role, if ``dim`` is one; the first word counts."""
        place = self.axes.places.get(id(dim))
        if place is not None:
            self.axes.roles.setdefault(place, role)

    def refuse(self, reason: str = "") -> list[Dims]:
        """Freeze everything this call touches; its outputs are constant."""
        for value in self.op.refs():
            for dim in self.axes.values[self.record.training][value]:
                self.freeze(dim, reason or "no rule for this operator")
        self.hold_numbers()
        return [[constant(n) for n in self.record.shapes[v]] if v is not None else [] for v in self.op.outs]


def rows(dim: Dim, start: int, stop: int) -> Dim:
    """Return a range of positions."""
    return dim[start:stop]


def stack_rows(dims: Dims) -> Dim:
    """Concatenate dimensions."""
    width = max(d.shape[1] for d in dims)
    if width == 0:
        return constant(sum(len(d) for d in dims))
    return np.concatenate([np.pad(d, ((0, 0), (0, width - d.shape[1]))) for d in dims]).astype(np.int32)
