"""Cost under a plan: arithmetic on the record, without running the model.

Every dimension's kept count is a polynomial in group sizes; an operator's multiply-accumulates, a tensor's elements
and a live activation's elements are products of such counts. All are compiled to a few arrays once, so that a
planner can ask for thousands of costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Cost
from .axes.groups import Partition
from .axes.inference import Dims
from .axes.units import Dim
from .recording.record import Op, Record, Ref, bind

_PRODUCTS = {
    "addmm": "mat1",
    "mm": "self",
    "bmm": "self",
    "baddbmm": "batch1",
    "linear": "input",
    "_grouped_mm": "self",
}
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


class _Products:
    """A growing table of products of dimension counts."""

    def __init__(self, found: Partition) -> None:
        self.found = found
        self.coefficients: list[float] = []
        self.owners: list[int] = []
        self.symbols: list[tuple[int, ...]] = []
        self.count = 0
        self._index: dict[int, int] = {}
        self._held: list[Dim] = []
        self.products: list[tuple[int, ...]] = []

    def dim(self, dim: Dim) -> int:
        """Return the number of a dimension's polynomial."""
        if id(dim) not in self._index:
            self._held.append(dim)
            self._index[id(dim)] = self.count
            for monomial, c in self.found.count(dim).terms.items():
                self.coefficients.append(float(c))
                self.owners.append(self.count)
                self.symbols.append(tuple(int(s) for s, p in monomial for _ in range(p)))  # type: ignore[arg-type]
            self.count += 1
        return self._index[id(dim)]

    def add(self, dims: Sequence[Dim]) -> int:
        """Add a product; return its number."""
        self.products.append(tuple(self.dim(d) for d in dims))
        return len(self.products) - 1


def _padded(rows: Sequence[tuple[int, ...]], fill: int) -> np.ndarray:
    width = max((len(r) for r in rows), default=0)
    table = np.full((len(rows), max(width, 1)), fill, np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return table


@dataclass(eq=False)
class CostModel:
    """Compiled costs of a record."""

    groups: int
    batch: int
    coefficients: np.ndarray
    owners: np.ndarray
    symbols: np.ndarray
    polys: int
    products: np.ndarray
    macs: np.ndarray
    outputs: np.ndarray
    params: np.ndarray
    untouched: int
    storages: np.ndarray
    born: np.ndarray
    dead: np.ndarray
    steps: int

    def cost(self, counts: Sequence[int]) -> Cost:
        """Return the cost when each group keeps ``counts`` units."""
        products = self._values(counts)
        live = np.zeros(self.steps + 2)
        np.add.at(live, self.born, products[self.storages])
        np.add.at(live, self.dead + 1, -products[self.storages])
        peak = np.cumsum(live).max(initial=0.0)
        return Cost(
            macs=round(products[self.macs].sum() / self.batch),
            params=round(products[self.params].sum()) + self.untouched,
            activations=round(peak / self.batch),
        )

    def output_elements(self, counts: Sequence[int]) -> int:
        """Return how many elements all convolutions and products put out when each group keeps ``counts`` units."""
        return round(self._values(counts)[self.outputs].sum() / self.batch)

    def _values(self, counts: Sequence[int]) -> np.ndarray:
        """Return the value of every product in the table."""
        sizes = np.append(np.asarray(counts, np.float64), 1.0)
        terms = self.coefficients * sizes[self.symbols].prod(axis=1)
        values = np.append(np.bincount(self.owners, terms, self.polys), 1.0)
        return values[self.products].prod(axis=1)


def compile_cost(
    record: Record, values: list[Dims], found: Partition, leaves: Mapping[str, Dims], untouched: int
) -> CostModel:
    """Compile the costs of one record; ``leaves`` are the touched parameters, ``untouched`` the others' elements."""
    table = _Products(found)
    macs = [table.add(dims) for op in record.ops for dims in _macs(op, values)]
    outputs = [table.add(values[op.outs[0]]) for op in record.ops if op.outs[0] is not None and _macs(op, values)]
    params = [table.add(dims) for dims in leaves.values()]
    storages, born, dead = _liveness(record, values, table)
    first = record.shapes[record.inputs[0]] if record.inputs else ()
    return CostModel(
        groups=len(found.sizes),
        batch=max(first[0], 1) if first else 1,
        coefficients=np.array(table.coefficients),
        owners=np.array(table.owners, np.int64),
        symbols=_padded(table.symbols, len(found.sizes)),
        polys=table.count,
        products=_padded(table.products, table.count),
        macs=np.array(macs, np.int64),
        outputs=np.array(outputs, np.int64),
        params=np.array(params, np.int64),
        untouched=untouched,
        storages=np.array(storages, np.int64),
        born=np.array(born, np.int64),
        dead=np.array(dead, np.int64),
        steps=len(record.ops),
    )


def _macs(op: Op, values: list[Dims]) -> list[Dims]:
    """Return the products whose sum is an operator's multiply-accumulates."""
    name = op.name.removeprefix("aten.")
    if name in ("convolution", "_convolution", "torchvision.deform_conv2d"):
        bound = bind(op)
        x, w = values[bound["input"].value], values[bound["weight"].value]
        return [[*x, *w[1:]]] if bound.get("transposed") else [[*_out(op, values), *w[1:]]]
    if name in _PRODUCTS:
        left = bind(op)[_PRODUCTS[name]]
        return [[*_out(op, values), values[left.value][-1]]]
    if name == "scaled_dot_product_attention":
        q, k, v = (values[_operand(op, i, n)] for i, n in enumerate(("query", "key", "value")))
        return [[*q, k[-2]], [*q[:-1], k[-2], v[-1]]]
    if name in _RECURRENT:
        packed = isinstance(op.args[1], Ref) and isinstance(op.args[3], list | tuple)
        x = values[op.args[0].value]
        return [[*x[:-1], *values[r.value]] for r in op.args[3 if packed else 2] if len(values[r.value]) == 2]
    return []


def _out(op: Op, values: list[Dims]) -> Dims:
    return values[op.outs[0]]  # type: ignore[index]


def _operand(op: Op, i: int, name: str) -> int:
    return (op.args[i] if i < len(op.args) else op.kwargs[name]).value


def _liveness(record: Record, values: list[Dims], table: _Products) -> tuple[list[int], list[int], list[int]]:
    """Return every activation's product, birth and last use; views share their base's storage."""
    storage: dict[int, int] = {}
    products, born, dead = [], [], []

    def create(value: int, step: int) -> None:
        storage[value] = len(products)
        products.append(table.add(values[value]))
        born.append(step)
        dead.append(step)

    def use(values_: Iterable[int], step: int) -> None:
        for value in values_:
            if value in storage:
                dead[storage[value]] = step

    for value in record.inputs:
        create(value, 0)
    for step, op in enumerate(record.ops):
        use(op.refs(), step)
        for i, value in enumerate(op.outs):
            base = _base(op, i)
            if value is not None and base is None:
                create(value, step)
            elif value is not None and base in storage:
                storage[value] = storage[base]
    use(record.outputs, len(record.ops))
    return products, born, dead


def _base(op: Op, i: int) -> int | None:
    """Return the value whose memory output ``i`` shares."""
    if isinstance(op.func, str):
        return None
    returns: Any = op.func._schema.returns
    info = returns[min(i, len(returns) - 1)].alias_info if returns else None
    if info is None:
        return None
    for argument, value in zip(op.func._schema.arguments, op.args, strict=False):
        if (
            argument.alias_info is not None
            and isinstance(value, Ref)
            and argument.alias_info.before_set & info.before_set
        ):
            return value.value
    return None
