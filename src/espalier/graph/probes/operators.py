"""Operators whose time depends on how wide the network is: the record, cut into pieces that can be timed alone.

    recorded call --counts of its dimensions--> operator: shapes with holes + one variable a distinct width
    operator, widths --> sized: the same call with every shape filled in

Operators that look alike (same kind, same arguments, same shapes and holes) have the same key, and need one table,
whatever their widths: a table measured on a network serves every network cut from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..axes.polynomial import Poly
from ..graph import Graph
from ..recording.record import Op, Record, Ref, bind, rebuild

Hole = tuple[int]  # the number of a variable, where a shape has no fixed size
Template = tuple[int | Hole, ...]


@dataclass(frozen=True, eq=False)
class Operator:
    """One recorded call whose shapes follow from widths.

    Attributes:
        kind: its ATen name (``convolution``).
        key: equal for operators that take equally long.
        op: the recorded call.
        templates: ``{value: shape}`` of every tensor it reads and of its first output.
        dtypes: ``{value: dtype}``.
        widths: the variables' values in the whole network.
        polynomials: the variables as polynomials in group sizes.
    """

    kind: str
    key: str
    op: Op
    templates: dict[int, Template]
    dtypes: dict[int, torch.dtype]
    widths: tuple[int, ...]
    polynomials: tuple[Poly, ...] = field(repr=False)

    def at(self, widths: Sequence[int]) -> Sized:
        """Return the call at these widths."""
        shapes = {
            value: tuple(int(widths[size[0]]) if isinstance(size, tuple) else size for size in template)
            for value, template in self.templates.items()
        }
        return Sized(self.kind, self.op, shapes, self.dtypes)


@dataclass(frozen=True, eq=False)
class Sized:
    """One call with every shape filled in.

    Attributes:
        kind, op, dtypes: as in ``Operator``.
        shapes: ``{value: shape}`` of every tensor it reads and of its first output.
    """

    kind: str
    op: Op
    shapes: dict[int, tuple[int, ...]]
    dtypes: dict[int, torch.dtype]

    def bound(self) -> dict[str, Any]:
        """Return the arguments by name; tensors are ``Ref``."""
        return bind(self.op)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor argument."""
        return self.shapes[self.bound()[name].value]

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return self.shapes[self.op.outs[0]]  # type: ignore[index]


def operators(graph: Graph, batch: int = 1) -> list[Operator]:
    """Return every operator of the eval-mode record; ``widths`` is empty where no plan can change its shapes.

    Args:
        graph: from ``trace``.
        batch: the leading dimension of what depends on the inputs is scaled to it from that of the traced example.
    """
    record = graph.records[0]
    live = _live(record)
    traced = record.shapes[record.inputs[0]][0] if record.inputs and record.shapes[record.inputs[0]] else 1
    called = [op for op in record.ops if op.outs and op.outs[0] is not None]
    return [_operator(graph, record, op, (traced, batch, live)) for op in called]


def widest(found: Sequence[Operator]) -> dict[str, tuple[Operator, tuple[int, ...]]]:
    """Return ``{key: (an operator, the largest of each of its widths in the network)}``."""
    result: dict[str, tuple[Operator, tuple[int, ...]]] = {}
    for one in found:
        _, known = result.get(one.key, (one, one.widths))
        result[one.key] = one, tuple(max(pair) for pair in zip(known, one.widths, strict=True))
    return result


def _live(record: Record) -> set[int]:
    """Return the values that depend on the inputs: their leading dimension holds the batch."""
    live = set(record.inputs)
    for op in record.ops:
        if live.intersection(op.refs()):
            live.update(value for value in op.outs if value is not None)
    return live


def _operator(graph: Graph, record: Record, op: Op, batch: tuple[int, int, set[int]]) -> Operator:
    traced, wanted, live = batch
    dims = graph.axes.values[False]
    sizes = list(graph.sizes.values())
    variables: list[Poly] = []
    widths: list[int] = []
    templates: dict[int, Template] = {}

    def hole(count: Poly) -> Hole:
        for number, known in enumerate(variables):
            if known == count:
                return (number,)
        variables.append(count)
        widths.append(int(count.value(sizes)))
        return (len(variables) - 1,)

    for value in dict.fromkeys([*op.refs(), op.outs[0]]):
        template: list[int | Hole] = []
        for d, dim in enumerate(dims[value]):  # type: ignore[index]
            count, size = graph.partition.count(dim), record.shapes[value][d]  # type: ignore[index]
            if d == 0 and value in live and size % traced == 0 and traced != wanted:
                count, size = count * Poly.const(wanted) * _inverse(traced), size // traced * wanted
            template.append(hole(count) if count.symbols() else size)
        templates[value] = tuple(template)  # type: ignore[index]
    dtypes = {value: record.dtypes[value] for value in templates}
    kind = op.name.removeprefix("aten.").rstrip("_")
    key = f"{kind} {_arguments(op, templates, dtypes)} -> {_shape(templates[op.outs[0]])}"  # type: ignore[index]
    return Operator(kind, key, op, templates, dtypes, tuple(widths), tuple(variables))


def _inverse(number: int) -> Poly:
    inverse = Poly.const(1).over(Poly.const(number))
    assert inverse is not None
    return inverse


def _arguments(op: Op, templates: dict[int, Template], dtypes: dict[int, torch.dtype]) -> str:
    """Spell a call's arguments; sizes among them that follow from its tensors' shapes are left out."""

    def spelled(item: Any) -> str:
        if isinstance(item, Ref):
            return f"{str(dtypes[item.value]).removeprefix('torch.')}{_shape(templates[item.value])}"
        if isinstance(item, float):
            return repr(float(item))
        return repr(int(item)) if isinstance(item, int) and not isinstance(item, bool) else str(item)

    given = {name: value for name, value in bind(op).items() if name not in FOLLOWING and value is not None}
    parts = {name: str(rebuild(value, spelled)).replace("'", "") for name, value in given.items()}
    return ", ".join(f"{name}={part}" for name, part in parts.items())


def _shape(template: Template) -> str:
    """Spell a shape: ``[1 a 56 56]``, with a letter for every variable."""
    return "[" + " ".join(chr(97 + size[0]) if isinstance(size, tuple) else str(size) for size in template) + "]"


FOLLOWING = {"groups", "normalized_shape", "N", "C", "HxW", "size", "split_size", "split_sizes"}


@dataclass(frozen=True, eq=False)
class Counts:
    """Polynomials in group sizes, compiled to arrays: ``counts.values(sizes)`` is one number a polynomial."""

    coefficients: np.ndarray
    owners: np.ndarray
    symbols: np.ndarray
    powers: np.ndarray
    total: int

    @classmethod
    def of(cls, polynomials: Sequence[Poly], groups: int) -> Counts:
        """Compile; powers may be negative."""
        terms = [(i, m, float(c)) for i, poly in enumerate(polynomials) for m, c in poly.terms.items()]
        width = max((len(monomial) for _, monomial, _ in terms), default=0) or 1
        symbols = np.full((len(terms), width), groups, np.int64)
        powers = np.ones((len(terms), width))
        for row, (_, monomial, _) in enumerate(terms):
            for column, (symbol, power) in enumerate(monomial):
                symbols[row, column], powers[row, column] = int(symbol), power  # type: ignore[call-overload]
        coefficients = np.array([c for _, _, c in terms])
        owners = np.array([i for i, _, _ in terms], np.int64)
        return cls(coefficients, owners, symbols, powers, len(polynomials))

    def values(self, sizes: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return one number a polynomial, for these group sizes."""
        extended = np.append(np.asarray(sizes, np.float64), 1.0)
        terms = self.coefficients * (extended[self.symbols] ** self.powers).prod(axis=1)
        return np.bincount(self.owners, terms, self.total)
