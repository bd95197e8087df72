"""Silence: which tensors must be zero for a value to be zero at a group's units.

A walk back through the record: moves and operators that keep zero zero are passed through, a sum needs all its terms, a
product one of its factors, a norm its weight and bias, an affine map its rows and its bias.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ..axes.rules import indexing, pieces, spatial, structure
from ..axes.units import NONE, Dim
from ..graph import Graph
from ..recording.record import Op, Record, Ref, bind

Place = tuple[str, int]  # tensor name, dimension

MOVES = {*structure.RULES, *pieces.RULES, *spatial.RULES, *indexing.RULES} - {"cat", "concat", "stack", "embedding"}
_ZERO_STAYS = {
    "clone", "_to_copy", "detach", "alias", "contiguous", "native_dropout", "dropout", "feature_dropout", "neg", "abs",
    "relu", "relu6", "gelu", "silu", "tanh", "hardswish", "leaky_relu", "elu", "celu", "selu", "mish", "sin", "erf",
    "sqrt", "square", "lift_fresh", "glu", "cumsum",
}  # fmt: skip
_ADDED = {"add", "sub", "cat", "concat", "stack"}
_NORMS = {
    "batch_norm",
    "layer_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
}
_NORMS |= {"native_layer_norm", "_fused_rms_norm", "rms_norm", "native_group_norm"}
# where each operator sums over positions: {argument: dimension}
CONTRACTED = {
    "linear": {"weight": 1, "input": -1},
    "addmm": {"mat2": 0, "mat1": 1},
    "mm": {"mat2": 0, "self": 1},
    "bmm": {"mat2": 1, "self": 2},
    "baddbmm": {"batch2": 1, "batch1": 2},
    "mv": {"self": 1, "vec": 0},
    "dot": {"self": 0, "tensor": 0},
    "_grouped_mm": {"mat2": 1, "self": 1},
    "convolution": {"weight": 1, "input": 1},
}
_WEIGHT_NORMS = ("_weight_norm", "_weight_norm_interface")
_BIAS = {"linear": "bias", "addmm": "self", "baddbmm": "self", "convolution": "bias"}


class Refused(Exception):
    """A value cannot be silenced; another operand may."""


class Silencer:
    """Walks one record back, for one group."""

    def __init__(self, graph: Graph, record: Record, group: int) -> None:
        self.graph, self.record, self.group = graph, record, group
        self.dims = graph.axes.values[record.training]
        self.maker: dict[int, Op] = {}
        self.users: dict[int, list[Op]] = defaultdict(list)
        for op in record.ops:
            for value in set(op.refs()):
                self.users[value].append(op)
            self.maker.update({value: op for value in op.outs if value is not None})
        # of the graph, not of the walk: dimensions are shared by all groups' walks
        self._cache: dict[int, tuple[Dim, frozenset[int]]] = vars(graph).setdefault("groups_on_dims", {})

    def groups(self, dim: Dim) -> frozenset[int]:
        """Return the groups on a dimension."""
        if not isinstance(dim, np.ndarray) or dim.shape[1] == 0:
            return frozenset()
        if id(dim) not in self._cache:
            atoms = self.graph.axes.units.resolve(dim)
            found = self.graph.partition.group[np.unique(atoms[atoms > NONE])]
            self._cache[id(dim)] = (dim, frozenset(found.tolist()))
        return self._cache[id(dim)][1]

    def carries(self, value: int) -> bool:
        """Whether the group is on any dimension of a value."""
        return any(self.group in self.groups(dim) for dim in self.dims[value])

    def is_weight(self, value: int) -> bool:
        """Whether a value is computed from tensors of the model alone."""
        while value not in self.record.names:
            if value not in self.maker or not self.maker[value].refs():
                return False
            op = self.maker[value]
            refs = op.refs()
            if len(refs) > 1:
                return all(self.is_weight(ref) for ref in refs)
            value = refs[0]
        return True

    def sources(self, value: int, dim: Dim | None, seen: set[object]) -> set[Place]:
        """Return the places that must be zero for ``value`` to be zero at the group's units."""
        if value in seen:
            return set()
        seen.add(value)
        if value in self.record.names:
            return {self._place(value, dim)}
        op = self.maker.get(value)
        if op is None or self._written(value, op, seen):
            raise Refused
        seen.add(("through", id(op)))
        return self._through(op, dim, seen)

    def _through(self, op: Op, dim: Dim | None, seen: set[object]) -> set[Place]:
        """Return the places that must be zero for an operator's output to be."""
        name, refs = plain(op), op.refs()
        carrying = [v for v in dict.fromkeys(refs) if self.carries(v)]
        if name in _ADDED:
            return self._all(op, name, carrying, dim, seen)
        if name in _NORMS:
            return self._affine(op, ("weight", "bias"), dim, seen)
        if name in ("mul", "div"):
            return self._any([v for v in carrying if name == "mul" or v == refs[0]], dim, seen)
        if name in CONTRACTED or name in ("embedding", "scaled_dot_product_attention"):
            return self._product(op, name, carrying, dim, seen)
        if name in _WEIGHT_NORMS:  # a row is zero by its magnitude, a column by itself
            return self.sources(refs[1] if self.carries(refs[1]) else refs[0], dim, seen)
        if name in MOVES or name in _ZERO_STAYS:
            return self.sources(refs[0], dim, seen)
        raise Refused

    def _all(self, op: Op, name: str, carrying: list[int], dim: Dim | None, seen: set[object]) -> set[Place]:
        """A sum is zero where all its terms are; a broadcast term without the group never is."""
        refs = op.refs()
        if name in ("add", "sub") and (len(refs) != 2 or set(refs) != set(carrying)):
            raise Refused
        return set().union(*(self.sources(v, dim, seen) for v in carrying))

    def _any(self, carrying: list[int], dim: Dim | None, seen: set[object]) -> set[Place]:
        """A product is zero where one of its factors is, tensors of the model first."""
        for value in sorted(carrying, key=lambda v: not self.is_weight(v)):
            try:
                trail = set(seen)
                found = self.sources(value, dim, trail)
            except Refused:
                continue
            seen |= trail
            return found
        raise Refused

    def _affine(self, op: Op, names: tuple[str, ...], dim: Dim | None, seen: set[object]) -> set[Place]:
        """A norm's output is zero where its weight and bias are."""
        bound = bind(op)
        given = [bound[n].value for n in names if isinstance(bound.get(n), Ref)]
        if not isinstance(bound.get(names[0]), Ref) or not all(self.carries(v) for v in given):
            raise Refused
        return set().union(*(self.sources(v, dim, seen) for v in given))

    def _product(self, op: Op, name: str, carrying: list[int], dim: Dim | None, seen: set[object]) -> set[Place]:
        """An affine map's output is zero where the rows of its weight and its bias are."""
        if name == "scaled_dot_product_attention":
            return self._any(op.refs()[2:3], dim, seen)
        bound = bind(op)
        bias = bound.get(_BIAS.get(name, ""))
        added = [bias.value] if isinstance(bias, Ref) else []
        if added and not self.carries(added[0]):
            raise Refused
        summed = CONTRACTED.get(name, {})
        factors = []
        for value in (v for v in carrying if v not in added):
            gone = {d % len(self.dims[value]) for n, d in summed.items() if bound[n].value == value}
            own = [d for i, d in enumerate(self.dims[value]) if i not in gone or bound.get("transposed")]
            factors += [value] if any(self.group in self.groups(d) for d in own) else []
        found = self._any(factors, dim, seen)
        return found.union(*(self.sources(v, dim, seen) for v in added))

    def _place(self, value: int, dim: Dim | None) -> Place:
        """Return the dimension of a tensor on which the group is; by identity where it is on several."""
        name, dims = self.record.names[value], self.dims[value]
        on = [d for d, one in enumerate(dims) if self.group in self.groups(one)]
        same = [d for d in on if dims[d] is dim]
        chosen = same or on
        if len(chosen) != 1 or not self.record.dtypes[value].is_floating_point:
            raise Refused
        return name, chosen[0]

    def _written(self, value: int, maker: Op, through: set[object]) -> bool:
        """Whether something that the walk has not come through writes into a made value, or a view of it."""
        pending, seen = [value], {value}
        while pending:
            one = pending.pop()
            for op in self.users[one]:
                if op is maker or ("through", id(op)) in through or isinstance(op.func, str):
                    continue
                returns = op.func._schema.returns
                if op.func._schema.is_mutable and op.refs()[0] == one:
                    return True
                if returns and returns[0].alias_info is not None:
                    new = {v for v in op.outs if v is not None} - seen
                    seen |= new
                    pending.extend(new)
        return False


def plain(op: Op) -> str:
    """Return an operator's name without its namespace, as if it were not in place."""
    name = op.name.removeprefix("aten.")
    return name if name.startswith("_") else name.removesuffix("_")
