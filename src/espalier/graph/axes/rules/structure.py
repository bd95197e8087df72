"""Structure: views and moves rearrange whole dimensions."""

from __future__ import annotations

import numpy as np

from ...recording.sizes import Size
from ..inference import Call, Dims, Refused
from ..regroup import regroup
from ..units import constant, merge


def view(call: Call) -> list[Dims]:
    """Reshape: dimensions merge and split where their products meet."""
    old, sizes = call.dims("self"), call["size"]
    try:
        out = regroup(call.axes.units, old, call.out_shape(), call.why("it is split unevenly"))
    except ValueError as error:
        raise Refused(str(error)) from error
    if sizes is not None and len(sizes) == len(out):
        call.axes.said.reshape(old, sizes, call.record.training, call.op.source)
        for number, dim in zip(sizes, out, strict=True):
            call.size(number, dim)
    return [out]


def permute(call: Call) -> list[Dims]:
    """Reorder the dimensions."""
    x = call.dims("self")
    return [[x[int(d)] for d in call["dims"]]]


def transpose(call: Call) -> list[Dims]:
    """Swap two dimensions."""
    x = call.dims("self")
    if x:
        a, b = call.dim("dim0"), call.dim("dim1")
        x[a], x[b] = x[b], x[a]
    return [x]


def matrix_transpose(call: Call) -> list[Dims]:
    """Swap the two dimensions of a matrix."""
    return [call.dims("self")[::-1]]


def unsqueeze(call: Call) -> list[Dims]:
    """Insert a dimension of size one."""
    x = call.dims("self")
    x.insert(int(call["dim"]) % (len(x) + 1), constant(1))
    return [x]


def squeeze(call: Call) -> list[Dims]:
    """Drop dimensions of size one."""
    x, given = call.dims("self"), call["dim"]
    where = range(len(x)) if given is None else [int(d) % len(x) for d in np.atleast_1d(given)] if x else []
    return [[dim for d, dim in enumerate(x) if not (d in where and len(dim) == 1)]]


def expand(call: Call) -> list[Dims]:
    """Broadcast sizes of one: each becomes a new axis (the repeats of grouped-query attention)."""
    x, shape = call.dims("self"), call.out_shape()
    out = [constant(1)] * (len(shape) - len(x)) + x
    for d, n in enumerate(shape):
        number = call["size"][d]
        if len(out[d]) != n:
            out[d] = call.fresh(n)
            if call.op.call == "repeat_interleave":  # its first number is how often
                number = call.op.passed[0]
                number = number if isinstance(number, Size) else Size(number, ("const", number))
        call.size(number, out[d])
    return [out]


def repeat(call: Call) -> list[Dims]:
    """Tile: a size of one becomes a new axis, any other repeats its rows."""
    x, times = call.dims("self"), call["repeats"]
    out = [constant(1)] * (len(times) - len(x)) + x
    for d, number in enumerate(times):
        if int(number) == 1:
            continue
        copies = call.fresh(int(number)) if len(out[d]) == 1 else constant(int(number))
        if isinstance(number, Size) and (number.expr[0] != "const" or len(out[d]) == 1):
            call.size(number, copies)
        out[d] = merge(copies, out[d])
    return [out]


def channel_shuffle(call: Call) -> list[Dims]:
    """(groups, c/groups) -> (c/groups, groups)."""
    x = call.dims("self")
    groups = int(call["groups"])
    outer, inner = call.split(x[1], groups, len(x[1]) // groups)
    call.size(call["groups"], outer)
    return [[x[0], merge(inner, outer), *x[2:]]]


def pixel_shuffle(call: Call) -> list[Dims]:
    """(c r r, h, w) -> (c, h r, w r)."""
    x = call.dims("self")
    r = int(call["upscale_factor"])
    channels, inner = call.split(x[-3], len(x[-3]) // (r * r), r * r)
    call.freeze(inner, "it becomes space")
    return [[*x[:-3], channels, *(constant(n) for n in call.out_shape()[-2:])]]


def pixel_unshuffle(call: Call) -> list[Dims]:
    """(c, h r, w r) -> (c r r, h, w)."""
    x = call.dims("self")
    r = int(call["downscale_factor"])
    return [[*x[:-3], merge(x[-3], constant(r * r)), *(constant(n) for n in call.out_shape()[-2:])]]


def unfold(call: Call) -> list[Dims]:
    """Sliding windows over one dimension, the window last."""
    x = call.dims("self")
    d = int(call["dimension"]) % len(x)
    call.freeze(x[d], "a window slides over it")
    shape = call.out_shape()
    return [[*x[:d], constant(shape[d]), *x[d + 1 :], constant(shape[-1])]]


def as_strided(call: Call) -> list[Dims]:
    """With unchanged sizes and the strides of a contiguous tensor, a change of memory layout only."""
    shape, stride = call.out_shape(), 1
    dense = []
    for n in reversed(shape):
        dense.insert(0, stride)
        stride *= n
    same = all(int(a) == b for a, b, n in zip(call["stride"], dense, shape, strict=True) if n > 1)
    if shape != call.shape("self") or not same or call["storage_offset"]:
        return call.refuse("memory is reinterpreted")
    return [call.dims("self")]


def diagonal(call: Call) -> list[Dims]:
    """The diagonal of two dimensions: their positions are compared."""
    x = call.dims("self")
    a, b = call.dim("dim1"), call.dim("dim2")
    for d in (a, b):
        call.freeze(x[d], "positions are compared")
    return [[*(x[d] for d in range(len(x)) if d not in (a, b)), constant(call.out_shape()[-1])]]


def view_as_complex(call: Call) -> list[Dims]:
    """The last dimension, of two, becomes the complex number."""
    x = call.dims("self")
    call.freeze(x[-1], "it becomes a complex number")
    return [x[:-1]]


def view_as_real(call: Call) -> list[Dims]:
    """Complex numbers become a last dimension of two."""
    return [[*call.dims("self"), constant(2)]]


RULES = {
    "view": view,
    "_unsafe_view": view,
    "reshape": view,
    "_reshape_alias": view,
    "_reshape_copy": view,
    "permute": permute,
    "transpose": transpose,
    "t": matrix_transpose,
    "numpy_T": matrix_transpose,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
    "repeat": repeat,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "unfold": unfold,
    "as_strided": as_strided,
    "diagonal": diagonal,
    "view_as_complex": view_as_complex,
    "view_as_real": view_as_real,
}
