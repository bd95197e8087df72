"""Contractions: convolutions and matrix products sum over one axis and keep the others."""

from __future__ import annotations

from ....core import Role
from ..inference import Call, Dims
from ..units import constant, merge

GROUPED_MULTIPLE = 8  # the kernel wants rows of a multiple of 16 bytes


def convolution(call: Call) -> list[Dims]:
    """Convolution of every kind: W (out, in/g, *kernel), transposed W (in, out/g, *kernel)."""
    x, w = call.dims("input"), call.dims("weight")
    for dim in x[2:]:
        call.freeze(dim, "a convolution slides over it")
    for dim in w[2:]:
        call.freeze(dim, "it is a kernel dimension")
    out = _grouped(call, x[1], w) if int(call["groups"]) > 1 else _plain(call, x[1], w)
    if call["bias"] is not None:
        bias = call.dims("bias")[0]
        call.role(bias, Role.SHIFT)
        call.unify(out, bias)
    return [[x[0], out, *(constant(n) for n in call.out_shape()[2:])]]


def _plain(call: Call, channels, w: Dims):
    reader, producer = (w[0], w[1]) if call["transposed"] else (w[1], w[0])
    call.role(producer, Role.PRODUCER)
    call.role(reader, Role.READER)
    call.unify(channels, reader)
    return producer


def _grouped(call: Call, channels, w: Dims):
    """Groups x channels in a group, on both sides; the group axis is one, shared."""
    groups = int(call["groups"])
    per_in = len(channels) // groups
    x_group, x_inner = call.split(channels, groups, per_in)
    w_group, w_inner = call.split(w[0], groups, len(w[0]) // groups)
    depthwise = per_in == 1 and len(w_inner) == 1 and len(w[1]) == 1
    transposed = bool(call["transposed"])
    call.role(w[0], Role.READER if transposed or depthwise else Role.PRODUCER)
    call.role(w[1], Role.PRODUCER if transposed else Role.READER)
    call.unify(x_group, w_group)
    call.unify(x_inner, w_inner if transposed else w[1])
    count = call["groups"]
    call.size(count, x_group)
    if not hasattr(count, "expr"):
        call.freeze(x_group, "the number of groups is written into the code")
    return merge(w_group, w[1]) if transposed else w[0]


def addmm(call: Call) -> list[Dims]:
    """Bias + a @ b."""
    out = _product(call, call.dims("mat1"), call.dims("mat2"))
    _add(call, call.dims("self"), out)
    return [out]


def baddbmm(call: Call) -> list[Dims]:
    """Bias + batched a @ b."""
    out = _batched(call, call.dims("batch1"), call.dims("batch2"))
    _add(call, call.dims("self"), out)
    return [out]


def _add(call: Call, bias: Dims, out: Dims) -> None:
    for d in range(1, len(bias) + 1):
        if len(bias[-d]) == len(out[-d]):
            call.role(bias[-d], Role.SHIFT)
            call.unify(out[-d], bias[-d])


def _product(call: Call, a: Dims, b: Dims) -> Dims:
    """A (.., m, k) @ b (k, n); whichever is a parameter learns its roles."""
    for left, inner in ((a[0], a[1]), (b[1], b[0])):
        call.role(left, Role.PRODUCER)
        call.role(inner, Role.READER)
    call.unify(a[1], b[0])
    return [a[0], b[1]]


def _batched(call: Call, a: Dims, b: Dims) -> Dims:
    call.unify(a[0], b[0])
    return [a[0], *_product(call, a[1:], b[1:])]


def mm(call: Call) -> list[Dims]:
    """Matrix product."""
    return [_product(call, call.dims("self"), call.dims("mat2"))]


def bmm(call: Call) -> list[Dims]:
    """Batched matrix product."""
    return [_batched(call, call.dims("self"), call.dims("mat2"))]


def addbmm(call: Call) -> list[Dims]:
    """Bias + the sum over the batch of a @ b."""
    _, *out = _batched(call, call.dims("batch1"), call.dims("batch2"))
    _add(call, call.dims("self"), out)
    return [out]


def sparse_addmm(call: Call) -> list[Dims]:
    """Sparse a @ b (+ bias): what is sparse stays as it is, the columns of b are channels."""
    a, b = call.dims("mat1"), call.dims("mat2")
    for dim in (*a, b[0]):
        call.freeze(dim, "a sparse matrix numbers its positions")
    out = [a[0], b[1]]
    _add(call, call.dims("self"), out)
    return [out]


def distances(call: Call) -> list[Dims]:
    """Distances |a_i - b_j| of rows a (.., n, k), b (.., m, k): a removed column added nothing."""
    a, b = call.dims("x1"), call.dims("x2")
    for x in (a, b):
        call.role(x[-1], Role.READER)
    call.unify(a[-1], b[-1])
    return [[*_broadcast(call, a[:-2], b[:-2]), a[-2], b[-2]]]


def _broadcast(call: Call, a: Dims, b: Dims) -> Dims:
    """Batch dimensions meet from the right; a size of one has no units."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    out = list(longer)
    for d in range(1, len(shorter) + 1):
        if len(shorter[-d]) == len(out[-d]):
            call.unify(out[-d], shorter[-d])
        elif len(out[-d]) == 1:
            out[-d] = shorter[-d]
    return out


def linear(call: Call) -> list[Dims]:
    """X @ W^T + b with W (out, in)."""
    x, w = call.dims("input"), call.dims("weight")
    call.role(w[0], Role.PRODUCER)
    call.role(w[1], Role.READER)
    call.unify(x[-1], w[1])
    if call["bias"] is not None:
        bias = call.dims("bias")[0]
        call.role(bias, Role.SHIFT)
        call.unify(w[0], bias)
    return [[*x[:-1], w[0]]]


def dot(call: Call) -> list[Dims]:
    """Inner product of two vectors."""
    a, b = (call.of(ref) for ref in call.op.args[:2])
    call.unify(a[0], b[0])
    return [[]]


def bilinear(call: Call) -> list[Dims]:
    """x1^T W x2 + b with W (out, in1, in2)."""
    a, b, w = call.dims("input1"), call.dims("input2"), call.dims("weight")
    call.role(w[0], Role.PRODUCER)
    for x, own in ((a, w[1]), (b, w[2])):
        call.role(own, Role.READER)
        call.unify(x[-1], own)
    if call["bias"] is not None:
        call.role(call.dims("bias")[0], Role.SHIFT)
        call.unify(w[0], call.dims("bias")[0])
    return [[*a[:-1], w[0]]]


def mv(call: Call) -> list[Dims]:
    """Matrix times vector."""
    a, v = call.dims("self"), call.dims("vec")[0]
    call.role(a[0], Role.PRODUCER)
    call.role(a[1], Role.READER)
    call.unify(a[1], v)
    return [[a[0]]]


def grouped_mm(call: Call) -> list[Dims]:
    """Mixture of experts: rows of x (tokens sorted by expert) times their expert's matrix: (t, k) x (e, k, n)."""
    x, w = call.dims("self"), call.dims("mat2")
    if len(x) != 2 or len(w) != 3:
        return call.refuse("a grouped product of this form")
    call.freeze(w[0], "tokens are routed to experts by number")
    call.role(w[2], Role.PRODUCER)
    call.role(w[1], Role.READER)
    call.unify(x[1], w[1])
    if call["bias"] is not None:
        return call.refuse("a grouped product with a bias")
    call.axes.multiples.extend([(w[1], GROUPED_MULTIPLE), (w[2], GROUPED_MULTIPLE)])
    return [[x[0], w[2]]]


RULES = {
    "convolution": convolution,
    "_convolution": convolution,
    "convolution_overrideable": convolution,
    "addmm": addmm,
    "baddbmm": baddbmm,
    "mm": mm,
    "bmm": bmm,
    "addbmm": addbmm,
    "_sparse_addmm": sparse_addmm,
    "_sparse_mm": sparse_addmm,
    "_cdist_forward": distances,
    "_euclidean_dist": distances,
    "linear": linear,
    "bilinear": bilinear,
    "dot": dot,
    "vdot": dot,
    "mv": mv,
    "_grouped_mm": grouped_mm,
}
