"""Pieces: dimensions are cut up, joined, turned and padded; bounds that Python wrote must hold after a cut."""

from __future__ import annotations

import numpy as np

from ...recording.record import tensor_refs
from ...recording.sizes import Size
from ..inference import Call, Dims, stack_rows
from ..units import Dim, constant


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
    for number in (call["start"], call["end"], call["step"]):
        call.bound(number, whole)
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
        for number in (call["start"], call["end"]):
            if isinstance(number, Size) and abs(int(number)) == n and number.expr[0] != "const":
                call.size(number if number > 0 else -number, whole)  # the width itself, by another name
    x[d] = whole[start:stop:step]
    if isinstance(call["end"], Size) and x[d].shape[1]:
        call.axes.said.size(call["end"], x[d], call.record.training)
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
    for number in (size, *call.op.passed):  # chunk is given how many
        call.bound(number, whole)
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
        call.bound(size, x[d])
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
            call.bound(shift, dim)
            _state_shift(call, shift, dim)
            x[int(d)] = np.roll(dim, int(shift), axis=0)
    return [x]


def _state_shift(call: Call, shift: int, dim: Dim) -> None:
    """A positive shift counts the positions that wrap from the end, a negative one those from the start."""
    n, s = len(dim), int(shift)
    if abs(s) >= n:
        call.freeze(dim, "it is rolled all the way round")
    elif s < 0:
        call.size(-shift if isinstance(shift, Size) else Size(-s, ("const", -s)), dim[:-s])
    elif s > 0:
        call.size(shift if isinstance(shift, Size) else Size(s, ("const", s)), dim[n - s :])


def pad(call: Call) -> list[Dims]:
    """Constant padding adds positions that are always there; a crop removes positions."""
    x, amounts = call.dims("self"), [int(p) for p in call["pad"]]
    for i in range(len(amounts) // 2):
        left, right = amounts[2 * i], amounts[2 * i + 1]
        if left == right == 0:
            continue
        dim = x[-1 - i]
        for number in call["pad"][2 * i : 2 * i + 2]:
            call.bound(number, dim)
        if left < 0 or right < 0:
            call.freeze(dim, "it is cropped by padding")
            dim = dim[max(-left, 0) : len(dim) - max(-right, 0)]
        x[-1 - i] = stack_rows([constant(max(left, 0)), dim, constant(max(right, 0))])
    return [x]


RULES = {
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
}
