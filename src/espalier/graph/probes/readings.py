"""Readings: where the units of a group are read, and which tensors silence them there.

A unit is gone when nothing reads it any more: no contraction (linear, convolution, product, recurrence) sums over it
and no reduction, nor the model's caller, sees it. What happens to it before, at whatever activation, does not matter.

    contraction with a weight      the weight's own columns
    contraction or reduction       walk back to tensors in which the value is zero where they are: last affine factors
    of activations                 (norm weight and bias, producer rows and bias), through zero-preserving operators
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...core import ModelError
from ..axes.rules import factories
from ..axes.units import NONE, Dim
from ..graph import Graph
from ..recording.record import Op, bind
from .silence import CONTRACTED, MOVES, Place, Refused, Silencer, plain

_LOOKS_AWAY = {*MOVES, *factories.RULES, "embedding"}  # a slice of other rows, a tensor of the same shape
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


@dataclass(frozen=True, eq=False)
class Reading:
    """One place where a group's units are read.

    Attributes:
        places: tensor dimensions that silence the units here.
        weight: the contraction's weight consists of tensors alone, and its columns are the places.
        positions: where the units sit in the dimension of the activation that is read, (units, k); None if unknown.
        source: ``file:line`` in the model's code.
    """

    places: frozenset[Place]
    weight: bool
    positions: np.ndarray | None
    source: str


def find_readings(graph: Graph, group: str) -> list[Reading]:
    """Return every reading of a group in all records.

    Raises:
        ModelError: somewhere the units are read where nothing can silence them.
    """
    # of the graph, not of the call: gates, taps and criteria ask for all groups again and again
    known: dict[str, list[Reading] | str] = vars(graph).setdefault("found_readings", {})
    if group not in known:
        number = graph.order.index(group)
        try:
            known[group] = [one for record in graph.records for one in _Reader(graph, record, number).readings()]
        except ModelError as error:
            known[group] = str(error)
    found = known[group]
    if isinstance(found, str):
        raise ModelError(found)
    return list(found)


class _Reader(Silencer):
    """Finds one group's readings in one record."""

    def readings(self) -> Iterator[Reading]:
        """Yield every reading."""
        for op in self.record.ops:
            if any(self.carries(value) for value in op.refs()):
                yield from self._read_by(op)
        for value in self.record.outputs:
            if self.carries(value):
                yield Reading(self._silenced([(value, None)], "an output of the model"), False, None, "")

    def _read_by(self, op: Op) -> Iterator[Reading]:
        name = plain(op)
        if name in _RECURRENT:
            yield from self._recurrent(op)
            return
        operands = list(self._contracted(op, name))
        if not operands:
            return
        weights = [o for o in operands if self.is_weight(o[0])]
        rest = [o for o in operands if o not in weights]
        what = f"{name} at {op.source}" if op.source else name
        positions = self._positions(rest[0][1]) if weights and len(rest) == 1 else None
        places = self._places(weights)
        yield Reading(places or self._silenced(operands, what), bool(places), positions, op.source)

    def _contracted(self, op: Op, name: str) -> Iterator[tuple[int, Dim]]:
        """Yield the operands' dimensions that an operator sums over, where the group is on them."""
        if name == "convolution":
            yield from self._convolved(op)
        elif name in CONTRACTED:
            bound = bind(op)
            for argument, d in CONTRACTED[name].items():
                yield from self._with_group(bound[argument].value, d)
        elif name == "scaled_dot_product_attention":
            query, key = op.refs()[:2]
            if list(self._with_group(key, -2)):  # softmax gives a zero its share
                raise ModelError(f"group {self.graph.order[self.group]!r} cannot be gated: attention's tokens")
            yield from (*self._with_group(query, -1), *self._with_group(key, -1))
        elif name not in _LOOKS_AWAY and (name == "cumsum" or not self._passes(op)):
            for value in dict.fromkeys(op.refs()):
                yield from ((value, dim) for dim in self.dims[value] if self.group in self.groups(dim))

    def _convolved(self, op: Op) -> Iterator[tuple[int, Dim]]:
        """Yield the operands' dimensions that a convolution sums over; the axis of the groups goes through."""
        bound = bind(op)
        transposed, axes = bool(bound["transposed"]), CONTRACTED["convolution"]
        weight = list(self._with_group(bound["weight"].value, 0 if transposed else axes["weight"]))
        if int(bound["groups"]) > 1 and (not weight or (transposed and self._passes(op))):
            return
        yield from weight
        yield from self._with_group(bound["input"].value, axes["input"])

    def _with_group(self, value: int, d: int) -> Iterator[tuple[int, Dim]]:
        dim = self.dims[value][d]
        if self.group in self.groups(dim):
            yield value, dim

    def _passes(self, op: Op) -> bool:
        """Whether the group is on an output of an operator."""
        return any(self.carries(value) for value in op.outs if value is not None)

    def _recurrent(self, op: Op) -> Iterator[Reading]:
        """Recurrent layers read by the columns of their weights, their own state included."""
        for value in op.refs():
            name = self.record.names.get(value)
            dims = self.dims[value]
            if name is not None and len(dims) == 2 and self.group in self.groups(dims[1]):
                yield Reading(frozenset([(name, 1)]), True, None, op.source)

    def _positions(self, dim: Dim) -> np.ndarray | None:
        """Return where each unit sits in a dimension: (units, k), or None where units sit unevenly."""
        atoms, partition = self.graph.axes.units.resolve(dim), self.graph.partition
        rows, columns = np.nonzero((atoms > NONE) & (partition.group[atoms] == self.group))
        ranks = partition.rank[atoms[rows, columns]]
        units = partition.sizes[self.group]
        if len(rows) % units or (np.bincount(ranks, minlength=units) != len(rows) // units).any():
            return None
        return rows[np.argsort(ranks, kind="stable")].reshape(units, -1)

    def _silenced(self, operands: Sequence[tuple[int, Dim | None]], what: str) -> frozenset[Place]:
        """Return the places that silence the group here."""
        found = self._places(operands)
        if not found:
            name = self.graph.order[self.group]
            raise ModelError(f"group {name!r} cannot be gated: {what} reads it where no weight can silence it")
        return found

    def _places(self, operands: Sequence[tuple[int, Dim | None]]) -> frozenset[Place]:
        """Return the places that silence those operands that can be silenced."""
        found: set[Place] = set()
        for value, dim in operands:
            try:
                found |= self.sources(value, dim, set())
            except (Refused, RecursionError):
                continue
        return frozenset(found)
