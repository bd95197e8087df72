"""Layer sizes: what a standard layer says of its weights, where the model's Python computes with it.

    sqrt(self.table.embedding_dim)     embedding_dim = kept columns of table.weight = a polynomial in group sizes

Attributes that Python passes as sizes are determined by what they are the size of (``ties.py``). These are the others:
factors, comparisons, bare numbers. They follow their weights, so Python's arithmetic does too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from ..axes.conditions import equalities
from ..axes.groups import Partition
from ..axes.inference import Axes, Dims
from ..axes.polynomial import Poly
from ..axes.ties import Solution
from ..recording.record import Record
from ..recording.sizes import Expr, expr_of, leaves
from ..recording.tensors import every_name
from .layers import described

Key = tuple[str, tuple]  # (module, path) of an attribute


def layer_sizes(
    model: nn.Module,
    records: Sequence[Record],
    axes: Axes,
    dims: dict[str, Dims],
    found: Partition,
    solution: Solution,
) -> dict[Key, Poly]:
    """Return ``{attribute: its size}`` of every layer attribute that Python computes with and no equation determines.

    Args:
        model: the model, or a copy without data.
        records: the eval and the train forward.
        axes: what was inferred from them.
        dims: of every tensor that was touched, by its first name.
        found: the groups.
        solution: of the equations.
    """
    wanted = _wanted(records, axes) - solution.attributes.keys()
    modules = {path for path, _ in wanted}
    if not modules:
        return {}
    sizes = _sizes(model, modules, dims, found)
    result: dict[Key, Poly] = {}
    for path in modules:
        groups = solution.attributes.get((path, ("groups",)))

        def size(tensor: str, d: int, path: str = path, groups: Poly | None = groups) -> Poly | None:
            return groups if tensor == "groups" else sizes.get((path, tensor, d))

        for key, poly in _attributes(path, model.get_submodule(path), size):
            if key in wanted and poly.symbols() and poly.value(found.sizes) == _now(model, key):
                result[key] = poly
    return result


def _wanted(records: Sequence[Record], axes: Axes) -> set[Key]:
    """Return the attributes that Python computes with, but for those that an equation speaks of."""
    passed = {leaf[1:] for record in records for leaf in _used(record)}
    equal = [side for record in records for left, right, _ in equalities(record) for side in (left, right)]
    equations = [e.left for e in axes.equations if isinstance(e.left, tuple)]
    return passed - {leaf[1:] for side in (*equal, *equations) for leaf in leaves(side)}


def _used(record: Record) -> Iterator[Expr]:
    """Yield the attributes in what Python passed, compared, counted out or made a bare number."""
    heard = record.heard
    expressions = {side for key in heard.compared for side in key[1:3]}
    expressions.update(expr for expr, _ in (*heard.looped, *heard.lost))
    expressions.update(expr_of(number) for op in record.ops for number in op.passed)
    yield from (leaf for expr in expressions for leaf in leaves(expr) if leaf[0] == "attr")


def _sizes(
    model: nn.Module, modules: set[str], dims: dict[str, Dims], found: Partition
) -> dict[tuple[str, str, int], Poly]:
    """Return ``{(module, its tensor, dimension): kept positions}``."""
    first: dict[int, str] = {}
    sizes: dict[tuple[str, str, int], Poly] = {}
    for name, tensor in every_name(model):
        canonical = first.setdefault(id(tensor), name)
        for path, own in _split(name):
            if path in modules:
                for d, n in enumerate(tensor.shape):
                    count = found.count(dims[canonical][d]) if canonical in dims else Poly.const(n)
                    sizes[path, own, d] = count
    return sizes


def _split(name: str) -> Iterator[tuple[str, str]]:
    """Yield every (module, name in it) of a tensor, the whole model first."""
    parts = name.split(".")
    for i in range(len(parts)):
        yield ".".join(parts[:i]), ".".join(parts[i:])


def _attributes(path: str, module: nn.Module, size) -> Iterator[tuple[Key, Poly]]:
    for name, value in described(module, size):
        if isinstance(value, tuple):
            yield from (((path, (name, i)), item) for i, item in enumerate(value))
        elif value is not None:
            yield (path, (name,)), value


def _now(model: nn.Module, key: Key) -> int | None:
    path, (name, *items) = key
    value = getattr(model.get_submodule(path), name)
    for item in items:
        value = value[item]
    return value
