"""Features: what modules return, which of their channels a surgery kept, and where the network is one stream.

    module ──returned──▶ value ──dimensions──▶ units ◀──kept or gone──  Surgery (slices of tensors)
                                                 └──▶ the kept positions of each dimension of what the module returns

A surgery speaks of tensors only; the units carry its words to every activation, blocks and tokens included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...core import CutError, Surgery
from ..axes.units import NONE, Dim
from ..graph import Graph
from ..recording.record import Record


@dataclass(frozen=True, eq=False)
class Feature:
    """What a module returns, on the traced example.

    Attributes:
        module: dotted name.
        value: its number in the record of the eval-mode forward.
        shape: on the example.
        channel: the dimension that carries the channels; None where none or several do.
        trunk: whatever the model returns is computed from this feature alone: nothing goes around it.
        answer: its channels are those of a tensor that the model returns.
    """

    module: str
    value: int
    shape: tuple[int, ...]
    channel: int | None
    trunk: bool
    answer: bool

    @property
    def positions(self) -> int:
        """Return in how many places (pixels, tokens) a sample has these channels."""
        return math.prod(self.shape[1:]) // (1 if self.channel is None else self.shape[self.channel])


def features(graph: Graph) -> dict[str, Feature]:
    """Return ``{module: what it returns}``, in the order of execution, of modules that run once a forward.

    A module that hands on what another computes (dropout and identities, which may do more in train mode) is left
    out, and so is the model itself.
    """
    record = graph.records[0]
    trunk = _trunk(graph, record)
    scope = {value: op.scope for op in record.ops for value in op.outs}
    answers = {unit for value in record.outputs for unit in _units(graph, graph.axes.values[False][value])}
    found: dict[str, Feature] = {}
    for name, values in record.returned.items():
        value = values[0]
        if not name or len(values) > 1 or value is None or not record.dtypes[value].is_floating_point:
            continue
        if f"{scope.get(value, '')}.".startswith(f"{name}."):
            dims = graph.axes.values[False][value]
            channel = _channel(graph, dims)
            answer = channel is not None and not answers.isdisjoint(_units(graph, [dims[channel]]))
            found[name] = Feature(name, value, record.shapes[value], channel, value in trunk, answer)
    return found


def kept_positions(graph: Graph, feature: Feature, alive: np.ndarray) -> dict[int, tuple[int, ...]]:
    """Return ``{dimension: kept positions}`` of a feature, where not all are kept.

    Args:
        graph: from ``trace``.
        feature: from ``features`` of the same graph.
        alive: from ``surviving``.
    """
    kept = [graph.kept(dim, alive) for dim in graph.axes.values[False][feature.value]]
    return {d: tuple(np.nonzero(stays)[0].tolist()) for d, stays in enumerate(kept) if not stays.all()}


def surviving(graph: Graph, surgery: Surgery) -> np.ndarray:
    """Return, for every atomic unit of the graph, whether ``surgery`` keeps it.

    Args:
        graph: of the network that the surgery's indices are relative to.
        surgery: of one or several cuts.

    Raises:
        CutError: the surgery is no cut of this network: it names another tensor or size, or keeps a part of a unit.
    """
    alive = np.ones(len(graph.partition.group), bool)
    for one in surgery.slices.values():
        dims = graph.leaves.get(one.tensor, [])
        if one.dim >= len(dims) or len(dims[one.dim]) != one.size:
            raise CutError(
                f"the surgery does not fit: the network has no {one.tensor!r} of {one.size} in dim {one.dim}"
            )
        atoms, kept = graph.axes.units.resolve(dims[one.dim]), np.zeros(one.size, bool)
        kept[list(one.keep)] = True
        alive[np.setdiff1d(atoms[~kept], atoms[kept])] = False
    alive[NONE] = True
    for name, dims in graph.leaves.items():
        for d, dim in enumerate(dims):
            expected = surgery.slices[name, d].keep if (name, d) in surgery.slices else tuple(range(len(dim)))
            if tuple(np.nonzero(graph.kept(dim, alive))[0].tolist()) != expected:
                raise CutError(f"the surgery is no cut of this network: of {name!r}, dim {d}, it keeps parts of units")
    return alive


def _channel(graph: Graph, dims: list[Dim]) -> int | None:
    """Return the dimension with free units, or else the one with frozen ones; None if that is not one alone."""
    units = graph.axes.units
    for frozen in (False, True):
        found = [d for d, dim in enumerate(dims) if (units.resolve(dim, keep_frozen=frozen) > NONE).any()]
        if found:
            return found[0] if len(found) == 1 and found[0] else None
    return None


def _units(graph: Graph, dims: list[Dim]) -> set[int]:
    """Return the atomic units on some dimensions, frozen ones too."""
    return {
        unit for dim in dims for unit in np.unique(graph.axes.units.resolve(dim, keep_frozen=True)).tolist() if unit
    }


def _trunk(graph: Graph, record: Record) -> set[int]:
    """Return the activations that are, at some moment of the forward, the only ones with channels still to be read."""
    last: dict[int, int] = dict.fromkeys(record.outputs, len(record.ops))
    for index, op in enumerate(record.ops):
        last.update({value: index for value in op.refs() if value not in record.outputs})
    found: set[int] = set()
    waiting: set[int] = set()
    for index, new, begins in _activations(graph, record):
        if begins:  # a stream that begins here goes around everything before
            found.clear()
        waiting = {value for value in waiting | new if last.get(value, index) > index}
        if len(waiting) == 1:
            found |= waiting
    return found


def _activations(graph: Graph, record: Record) -> Iterator[tuple[int, set[int], bool]]:
    """Yield each operator on the inputs' data, the values with channels it makes, and whether no operand has any."""
    dims = graph.axes.values[False]
    seen = set(record.inputs)
    for index, op in enumerate(record.ops):
        operands = seen.intersection(op.refs())
        if operands:
            outs = {value for value in op.outs if value is not None}
            seen |= outs
            new = {value for value in outs if _carries(dims[value])}
            yield index, new, bool(new) and not any(_carries(dims[value]) for value in operands)


def _carries(dims: list[Dim]) -> bool:
    return any(dim.shape[1] > 0 for dim in dims)
