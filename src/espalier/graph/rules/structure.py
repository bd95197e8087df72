"""Structure: views, concatenations, slices and moves rearrange positions."""

from __future__ import annotations

import numpy as np

from ..inference import Call, Dims, Refused, stack_rows, tensor_refs
from ..sizes import Size
from ..units import Dim, constant, merge


def view(call: Call) -> list[Dims]:
    """Reshape: dimensions merge and split where their products meet."""
    old, shape = call.dims("self"), call.out_shape()
    out: Dims = []
    for sources, targets in _blocks([len(d) for d in old], list(shape)):
        parts = [old[i] for i in sources]
        whole = parts[0] if len(parts) == 1 else merge(*parts) if parts else constant(1)
        sizes = tuple(shape[j] for j in targets)
        out.extend([whole] if len(sizes) == 1 else call.split(whole, *sizes) if sizes else [])
    sizes = call["size"]
    if sizes is not None and len(sizes) == len(out):
        for number, dim in zip(sizes, out, strict=True):
            call.size(number, dim)
    return [out]


def _blocks(old: list[int], new: list[int]):
    """Yield the smallest runs (old indices, new indices) with equal products."""
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        if i < len(old):
            left, a, i = [i], old[i], i + 1
        if j < len(new):
            right, b, j = [j], new[j], j + 1
        while a != b or not right or not left:
            if (a < b or not left) and i < len(old):
                left.append(i)
                a, i = a * old[i], i + 1
            elif j < len(new):
                right.append(j)
                b, j = b * new[j], j + 1
            elif i < len(old):
                left.append(i)
                a, i = a * old[i], i + 1
            else:
                break
        if a != b:
            raise Refused("a view whose sizes do not match")
        yield left, right


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


def cat(call: Call) -> list[Dims]:
    """Concatenate: rows stack along one dimension, the others meet."""
    refs = [r for r in tensor_refs(call["tensors"]) if call.record.shapes[r.value] != (0,)]
    parts = [call.of(r) for r in refs]
    d = int(call["dim"] or 0) % len(parts[0])
    out = list(parts[0])
    for part in parts[1:]:
        for i, dim in enumerate(part):
            if i != d:
                call.unify(out[i], dim)
    out[d] = stack_rows([p[d] for p in parts])
    return [out]


def stack(call: Call) -> list[Dims]:
    """Stack along a new dimension, whose positions cannot be removed."""
    parts = [call.of(r) for r in tensor_refs(call["tensors"])]
    out = list(parts[0])
    for part in parts[1:]:
        for a, b in zip(out, part, strict=True):
            call.unify(a, b)
    out.insert(int(call["dim"] or 0) % (len(out) + 1), constant(len(parts)))
    return [out]


def slices(call: Call) -> list[Dims]:
    """A range of positions; bounds that Python wrote must still be right after a cut."""
    x = call.dims("self")
    d = call.dim()
    whole, n = x[d], len(x[d])
    start = _bound(call["start"], n, 0)
    stop = max(_bound(call["end"], n, n), start)
    step = int(call["step"] or 1)
    if step > 1 and n % step == 0 and start < step and stop == n:  # one of ``step`` interleaved parts
        outer, inner = call.split(whole, n // step, step)
        call.freeze(inner, "it is read with a stride")
        x[d] = outer
        return [x]
    if step != 1:
        call.freeze(whole, "it is read with a stride")
    if whole.shape[1]:
        _state_bound(call, call["start"], whole[:start], whole[start:])
        if stop < n:
            _state_bound(call, call["end"], whole[:stop], whole[stop:])
    x[d] = whole[start:stop:step]
    return [x]


def _bound(number: int | None, size: int, default: int) -> int:
    if number is None:
        return default
    return min(max(int(number) + size if int(number) < 0 else int(number), 0), size)


def _state_bound(call: Call, number: int | None, before: Dim, after: Dim) -> None:
    """The bound counts the positions before it, or, when negative, those after it."""
    if number is None or len(before) == 0 or len(after) == 0:
        return
    if int(number) < 0:
        negated = -number if isinstance(number, Size) else Size(-int(number), ("const", -int(number)))
        call.size(negated, after)
    else:
        call.size(number if isinstance(number, Size) else Size(int(number), ("const", int(number))), before)


def split(call: Call) -> list[Dims]:
    """Pieces of one size: given by Python, or equal shares (chunk)."""
    x = call.dims("self")
    d = call.dim()
    size, whole = call["split_size"], x[d]
    pieces = [whole[i : i + int(size)] for i in range(0, len(whole), int(size))]
    if isinstance(size, Size):
        for piece in pieces[: len(pieces) - (len(pieces[-1]) < int(size))]:
            call.size(size, piece)
    elif call.op.call == "split" or len(pieces[-1]) != int(size):
        call.freeze(whole, "it is split into pieces of a size written into the code")
    else:
        for piece in pieces[1:]:
            if piece.shape[1]:
                call.same_size(pieces[0], piece)
    return [[*x[:d], piece, *x[d + 1 :]] for piece in pieces]


def split_with_sizes(call: Call) -> list[Dims]:
    """Pieces of given sizes."""
    x = call.dims("self")
    d, start, outs = call.dim(), 0, []
    for size in call["split_sizes"]:
        piece = x[d][start : start + int(size)]
        call.size(size if isinstance(size, Size) else Size(int(size), ("const", int(size))), piece)
        outs.append([*x[:d], piece, *x[d + 1 :]])
        start += int(size)
    return outs


def unbind(call: Call) -> list[Dims]:
    """Take a dimension apart: its positions are used one by one."""
    x = call.dims("self")
    d = call.dim()
    call.freeze(x[d], "its positions are used one by one")
    return [[*x[:d], *x[d + 1 :]] for _ in call.op.outs]


def select(call: Call) -> list[Dims]:
    """One position of a dimension."""
    x = call.dims("self")
    d = call.dim()
    call.freeze(x[d], "one position of it is picked")
    return [[*x[:d], *x[d + 1 :]]]


def flip(call: Call) -> list[Dims]:
    """Reverse positions."""
    x = call.dims("self")
    for d in call["dims"]:
        x[int(d)] = x[int(d)][::-1]
    return [x]


def roll(call: Call) -> list[Dims]:
    """Rotate positions; the shift must still move the same positions across the end."""
    x = call.dims("self")
    if not call["dims"]:
        return call.refuse("a roll over the flattened tensor")
    for shift, d in zip(call["shifts"], call["dims"], strict=True):
        dim = x[int(d)]
        if dim.shape[1]:
            s = int(shift) % len(dim)
            call.size(shift if isinstance(shift, Size) else Size(s, ("const", s)), dim[len(dim) - s :])
            x[int(d)] = np.roll(dim, s, axis=0)
    return [x]


def pad(call: Call) -> list[Dims]:
    """Constant padding adds positions that are always there; a crop removes positions."""
    x, amounts = call.dims("self"), [int(p) for p in call["pad"]]
    for i in range(len(amounts) // 2):
        left, right = amounts[2 * i], amounts[2 * i + 1]
        if left == right == 0:
            continue
        dim = x[-1 - i]
        if left < 0 or right < 0:
            call.freeze(dim, "it is cropped by padding")
            dim = dim[max(-left, 0) : len(dim) - max(-right, 0)]
        x[-1 - i] = stack_rows([constant(max(left, 0)), dim, constant(max(right, 0))])
    return [x]


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
    """With unchanged sizes a change of memory layout only."""
    if call.out_shape() != call.shape("self"):
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
    "cat": cat,
    "concat": cat,
    "stack": stack,
    "slice": slices,
    "split": split,
    "unsafe_split": split,
    "split_with_sizes": split_with_sizes,
    "unsafe_split_with_sizes": split_with_sizes,
    "unbind": unbind,
    "select": select,
    "flip": flip,
    "roll": roll,
    "constant_pad_nd": pad,
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
