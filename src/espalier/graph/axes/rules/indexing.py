"""Indexing by tensors: what is indexed freezes, unless the index is a known constant."""

from __future__ import annotations

from ....core import Role
from ...recording.record import Ref
from ..inference import Call, Dims, Refused
from ..units import constant


def embedding(call: Call) -> list[Dims]:
    """Rows of a table: the rows are numbered by the data, the columns are channels."""
    table = call.dims("weight")
    call.freeze(table[0], "the data numbers its rows")
    call.role(table[1], Role.PRODUCER)
    return [[*call.dims("indices"), table[1]]]


def embedding_bag(call: Call) -> list[Dims]:
    """Sums, means or maxima of a table's rows, bag by bag."""
    table = call.dims("weight")
    call.freeze(table[0], "the data numbers its rows")
    call.role(table[1], Role.PRODUCER)
    for name in ("indices", "offsets", "per_sample_weights"):
        for dim in call.dims(name):
            call.freeze(dim, "it counts rows in a bag")
    rest = [[constant(n) for n in call.out_shape(i)] for i in range(1, len(call.op.outs))]
    return [[constant(call.out_shape()[0]), table[1]], *rest]


def renorm(call: Call) -> list[Dims]:
    """Rows of a table shortened in place to a norm over their columns."""
    table = call.dims("self")
    call.freeze(table[0], "the data numbers its rows")
    call.statistic(table[1])
    if float(call["norm_type"]) < 0:
        call.freeze(table[1], "a norm of negative order needs every position of it")
    return [table]


def segments(call: Call) -> list[Dims]:
    """Runs of rows reduced to one each."""
    x = call.dims("data")
    if int(call["axis"]) != 0:
        return call.refuse("segments along an inner dimension")
    for name in ("lengths", "offsets", "indices"):
        for dim in call.dims(name):
            call.freeze(dim, "it numbers positions")
    call.freeze(x[0], "it is taken apart into segments")
    return [[constant(call.out_shape()[0]), *x[1:]]]


def index_select(call: Call) -> list[Dims]:
    """Positions picked by an index tensor."""
    x = call.dims("self")
    d = call.dim()
    call.freeze(x[d], "it is indexed by a tensor")
    for dim in call.dims("index"):
        call.freeze(dim, "it numbers positions")
    x[d] = constant(call.out_shape()[d])
    return [x]


def index(call: Call) -> list[Dims]:
    """x[i, :, j]: the indexed dimensions freeze, the others stay."""
    x, indices, shape = call.dims("self"), call["indices"], call.out_shape()
    indexed = _indexed(call, indices)
    for d in indexed:
        call.freeze(x[d], "it is indexed by a tensor")
    kept = [x[d] for d in range(len(x)) if d not in indexed]
    width = len(shape) - len(kept)
    adjacent = indexed == list(range(indexed[0], indexed[0] + len(indexed)))
    where = indexed[0] if adjacent else 0
    picked = _picked(call, indices, width, shape[where : where + width])
    return [[*kept[:where], *picked, *kept[where:]]]


def _picked(call: Call, indices, width: int, sizes: tuple[int, ...]) -> Dims:
    """The index tensors' own broadcast dimensions."""
    for ref in indices:
        if isinstance(ref, Ref) and len(call.of(ref)) == width and call.record.shapes[ref.value] == tuple(sizes):
            return call.of(ref)
    for ref in indices:
        if isinstance(ref, Ref):
            for dim in call.of(ref):
                call.freeze(dim, "it numbers positions")
    return [constant(n) for n in sizes]


def _indexed(call: Call, indices) -> list[int]:
    found: list[int] = []
    d = 0
    for ref in indices:
        if isinstance(ref, Ref):
            mask = str(call.record.dtypes[ref.value]) in ("torch.bool", "torch.uint8")
            rank = len(call.record.shapes[ref.value]) if mask else 1
            found.extend(range(d, d + rank))
            d += rank
        else:
            d += 1
    if not found:
        raise Refused("an index without tensors")
    return found


def index_put(call: Call) -> list[Dims]:
    """x[i] = v: the indexed dimensions freeze, the others meet the value's."""
    x, values = call.dims("self"), call.dims("values")
    indexed = _indexed(call, call["indices"])
    for d in indexed:
        call.freeze(x[d], "it is indexed by a tensor")
    for ref in call["indices"]:
        for dim in call.of(ref) if isinstance(ref, Ref) else []:
            call.freeze(dim, "it numbers positions")
    after = [x[d] for d in range(indexed[-1] + 1, len(x))]
    if indexed != list(range(indexed[0], len(indexed) + indexed[0])) or indexed[0] != 0:
        return call.refuse("a write through indices in the middle")
    for own, new in zip(after[::-1], values[::-1], strict=False):
        if len(own) == len(new):
            call.unify(own, new)
    for dim in values[: max(len(values) - len(after), 0)]:
        call.freeze(dim, "it numbers positions")
    return [x]


def index_add(call: Call) -> list[Dims]:
    """x[i] += v along one dimension."""
    x, source = call.dims("self"), call.dims("source")
    for dim in call.dims("index"):
        call.freeze(dim, "it numbers positions")
    d = call.dim()
    for i, (own, new) in enumerate(zip(x, source, strict=True)):
        if i == d:
            call.freeze(own, "it is indexed by a tensor")
            call.freeze(new, "it is indexed by a tensor")
        else:
            call.unify(own, new)
    return [x]


def gather(call: Call) -> list[Dims]:
    """Values picked along one dimension, everywhere else position by position."""
    x, where = call.dims("self"), call.dims("index")
    d = call.dim()
    out = []
    for i, (own, picked) in enumerate(zip(x, where, strict=True)):
        if i == d:
            call.freeze(own, "it is indexed by a tensor")
        elif len(own) == len(picked):
            call.unify(own, picked)
        else:
            call.freeze(own, "part of it is gathered")
            call.freeze(picked, "part of it is gathered")
        out.append(picked)
    return [out]


def scatter(call: Call) -> list[Dims]:
    """Values written along one dimension, everywhere else position by position."""
    x, d = call.dims("self"), call.dim()
    others = [call.dims(n) for n in ("index", "src") if isinstance(call[n], Ref)]
    for i, own in enumerate(x):
        for other in others:
            if i < len(other):
                if i != d and len(own) == len(other[i]):
                    call.unify(own, other[i])
                else:
                    call.freeze(own, "it is indexed by a tensor")
                    call.freeze(other[i], "it numbers positions")
    call.freeze(x[d], "it is indexed by a tensor")
    return [x]


def along(call: Call) -> list[Dims]:
    """Sorting and the like: one dimension is ordered by value, the others stay."""
    x = call.dims("self")
    shape = call.out_shape()
    if not x:
        return [[] for _ in call.op.outs]
    d = int(call["dim"] if call["dim"] is not None else -1) % len(x)
    call.freeze(x[d], "it is ordered by value")
    x[d] = constant(shape[d])
    return [list(x) for _ in call.op.outs]


RULES = {
    "embedding": embedding,
    "_embedding_bag": embedding_bag,
    "_embedding_bag_forward_only": embedding_bag,
    "embedding_renorm": renorm,
    "segment_reduce": segments,
    "index_select": index_select,
    "index": index,
    "_unsafe_index": index,
    "index_put": index_put,
    "_unsafe_index_put": index_put,
    "_index_put_impl": index_put,
    "index_add": index_add,
    "index_copy": index_add,
    "gather": gather,
    "scatter": scatter,
    "scatter_add": scatter,
    "scatter_reduce": scatter,
    "index_reduce": index_add,
    "topk": along,
    "sort": along,
    "argsort": along,
}
