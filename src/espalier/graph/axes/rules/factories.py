"""Factories: new tensors whose sizes come from Python."""

from __future__ import annotations

from ...recording.sizes import Size
from ..inference import Call, Dims
from ..units import constant


def filled(call: Call) -> list[Dims]:
    """zeros, ones, full, rand: a size that Python computed becomes an axis, a literal is constant."""
    sizes = call["size"]
    if sizes is None:
        return ranged(call)
    if "dropout" in call.op.call and call["self"] is not None:  # PyTorch's own: one number a channel
        own = call.dims("self")
        return [[dim if len(dim) == n else constant(n) for dim, n in zip(own, map(int, sizes), strict=True)]]
    return [[_axis(call, number) for number in sizes]]


def _axis(call: Call, number: int):
    if int(number) < 2 or not isinstance(number, Size) or number.expr[0] == "const":
        return constant(int(number))
    if number.expr[0] == "dim":
        same = call.axes.values[call.record.training][number.expr[1]][number.expr[2]]
        return same  # as many positions as that axis, one for one
    axis = call.fresh(int(number))
    call.size(number, axis)
    return axis


def ranged(call: Call) -> list[Dims]:
    """arange, linspace, eye: values that number positions; their count must stay."""
    numbers = [n for n in (*call.op.args, *call.op.kwargs.values()) if isinstance(n, Size)]
    outs = [[constant(n) for n in call.out_shape(i)] for i in range(len(call.op.outs))]
    for number in numbers:
        if number.expr[0] != "const":
            call.size(number, constant(int(number)))
    return outs


_FILLED = (
    "zeros ones empty full rand randn new_zeros new_ones new_empty new_full empty_strided empty_permuted randint"
).split()
_RANGED = (
    "arange linspace logspace eye scalar_tensor randperm range hann_window hamming_window tril_indices triu_indices"
).split()
RULES = {**dict.fromkeys(_FILLED, filled), **dict.fromkeys(_RANGED, ranged)}
