"""Normalisations: batch norm keeps channels apart; the others take statistics over them."""

from __future__ import annotations

from ....core import Role
from ...recording.sizes import Size
from ..inference import Call, Dims
from ..units import Dim, constant, merge


def _affine(call: Call, dim: Dim, names: tuple[str, ...], d: int = 0) -> None:
    for name in names:
        if call[name] is not None:
            own = call.dims(name)[d]
            call.role(own, Role.SCALE if name == "weight" else Role.SHIFT)
            call.unify(dim, own)


def batch_norm(call: Call) -> list[Dims]:
    """Statistics a channel: nothing couples; batch statistics are taken over the other dimensions."""
    x = call.dims("input")
    if call["training"] or call["running_mean"] is None:
        for dim in (x[0], *x[2:]):
            call.statistic(dim)
    _affine(call, x[1], ("weight", "bias", "running_mean", "running_var"))
    saved = [[x[1]] if call.out_shape(i) == (len(x[1]),) else None for i in range(1, len(call.op.outs))]
    return [x, *saved]  # type: ignore[list-item]


def layer_norm(call: Call) -> list[Dims]:
    """Statistics over the trailing dimensions."""
    x = call.dims("input")
    count = len(call["normalized_shape"])
    for j, (size, dim) in enumerate(zip(call["normalized_shape"], x[-count:], strict=True)):
        call.statistic(dim)
        call.size(size if isinstance(size, Size) else Size(size, ("const", size)), dim)
        _affine(call, dim, ("weight", "bias"), j)
    kept = x[: len(x) - count]
    rest = [[*kept, *(constant(1) for _ in range(count))] for _ in call.op.outs[1:]]
    return [x, *rest]


def group_norm(call: Call) -> list[Dims]:
    """Statistics over the channels of each group: groups x channels in a group."""
    x = call.dims("input")
    groups = int(call["group"])
    outer, inner = call.split(x[1], groups, len(x[1]) // groups)
    call.statistic(inner)
    if groups > 1:
        call.size(call["group"], outer)
        if not hasattr(call["group"], "expr"):
            call.freeze(outer, "the number of groups is written into the code")
    whole = merge(outer, inner)
    call.unify(x[1], whole)
    _affine(call, x[1], ("weight", "bias"))
    return [x, *([x[0], outer] for _ in call.op.outs[1:])]


def weight_norm(call: Call) -> list[Dims]:
    """V * g / |v|: the norm of each slice along ``dim``; a removed entry contributed zero to it."""
    v, g = call.dims("v"), call.dims("g")
    d = int(call["dim"] or 0)
    call.role(g[d], Role.SCALE)
    call.unify(v[d], g[d])
    return [v, *(list(g) for _ in call.op.outs[1:])]


RULES = {
    "batch_norm": batch_norm,
    "native_batch_norm": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "_batch_norm_with_update": batch_norm,
    "_batch_norm_no_update": batch_norm,
    "cudnn_batch_norm": batch_norm,
    "miopen_batch_norm": batch_norm,
    "_batch_norm_impl_index": batch_norm,
    "layer_norm": layer_norm,
    "native_layer_norm": layer_norm,
    "_fused_rms_norm": layer_norm,
    "rms_norm": layer_norm,
    "native_group_norm": group_norm,
    "_weight_norm_interface": weight_norm,
    "_weight_norm": weight_norm,
}
