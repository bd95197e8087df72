"""Statistics over kept positions: what norms, softmax, means and extrema compute when masked positions do not count.

Each function runs one operator of a masked replay and returns its result and the result's mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..recording.execute import execute
from ..recording.record import Op, Ref, bind

if TYPE_CHECKING:
    from .masked import MaskedReplay


def mean(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Mean over what is kept."""
    x, m = args[0], replay.mask_of(op, "self")
    bound = bind(op)
    total, count = reduced(x, bound, torch.sum), reduced(m.to(x.dtype), bound, torch.sum)
    return total / count.clamp_min(1), (count > 0).float()


def variance(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """Variance or deviation over what is kept, with the mean where it is asked for."""
    x, m, bound = args[0], replay.mask_of(op, "self"), bind(op)
    correction = bound.get("correction")
    correction = (1.0 if bound.get("unbiased", True) else 0.0) if correction is None else float(correction)
    m = m.to(x.dtype)
    keep = {**bound, "keepdim": True}
    count = reduced(m, keep, torch.sum)
    mean = reduced(x, keep, torch.sum) / count.clamp_min(1)
    squares = reduced(((x - mean) * m) ** 2, bound, torch.sum)
    left = reduced(m, bound, torch.sum)
    result = squares / (left - correction).clamp_min(1e-300)
    if "std" in op.name:
        result = result.sqrt()
    alive = (left > 0).float()
    if "mean" in op.name:
        return [result, mean.reshape(result.shape)], [alive, alive]
    return result, alive


def extremum(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """Largest, smallest, or both, of what is kept."""
    x, m, bound = args[0], replay.mask_of(op, "self"), bind(op)
    alive = (reduced(m, bound, torch.amax) > 0).float()
    low, high = (execute(op, (x.masked_fill(m == 0, end), *args[1:]), kwargs) for end in _ends(x.dtype))
    if "aminmax" in op.name:
        return [high[0], low[1]], alive
    return (high if "min" in op.name else low), alive


def _ends(dtype: torch.dtype) -> tuple[float, float]:
    """Return the smallest and the largest number of a type."""
    if dtype.is_floating_point:
        return float("-inf"), float("inf")
    return (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)


def loss(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """A loss, entry by entry, over the entries that are kept on both sides."""
    bound = bind(op)
    x, target = (replay.values[bound[name].value] for name in ("self", "target"))
    m = (replay.mask_of(op, "self") * replay.mask_of(op, "target")).to(x.dtype)
    names = [a.name for a in op.func._schema.arguments]
    rest = {n: replay.operand(bound[n]) for n in names if n not in ("self", "target")}
    each = op.func(x, target, **{**rest, "reduction": 0}) * m
    if bound["reduction"] == 0:
        return each, m.float().expand(each.shape)
    total = each.sum()
    mean = total / m.expand(each.shape).sum().clamp_min(1)
    return (mean if bound["reduction"] == 1 else total), torch.ones((), device=x.device)


def softmax(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Softmax over what is kept."""
    m = replay.mask_of(op, "self")
    return execute(op, (args[0].masked_fill(m == 0, float("-inf")), *args[1:]), kwargs), m


def layer_norm(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """Layer or root-mean-square norm over what is kept."""
    bound = bind(op)
    x, m = replay.values[bound["input"].value], replay.mask_of(op, "input")
    m = m.to(x.dtype)
    dims = tuple(range(x.dim() - len(bound["normalized_shape"]), x.dim()))
    count = m.sum(dims, keepdim=True).clamp_min(1)
    centred = "layer" in op.name
    mean = x.sum(dims, keepdim=True) / count if centred else torch.zeros_like(count)
    y = (x - mean) * m
    eps = bound["eps"] if bound["eps"] is not None else torch.finfo(x.dtype).eps
    y = y * ((y**2).sum(dims, keepdim=True) / count + eps).rsqrt()
    return _affine(replay, op, bound, y, m, ())


def group_norm(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """Group norm over what is kept."""
    bound = bind(op)
    x, m = replay.values[bound["input"].value], replay.mask_of(op, "input")
    shape, groups = x.shape, int(bound["group"])
    m = m.to(x.dtype).reshape(shape[0], groups, -1)
    flat = x.reshape(shape[0], groups, -1)
    count = m.sum(2, keepdim=True).clamp_min(1)
    y = (flat - flat.sum(2, keepdim=True) / count) * m
    y = y * ((y**2).sum(2, keepdim=True) / count + bound["eps"]).rsqrt()
    return _affine(replay, op, bound, y.reshape(shape), m.reshape(shape), (1,) * (x.dim() - 2))


def _affine(replay: MaskedReplay, op: Op, bound: dict, y: Tensor, m: Tensor, tail: tuple[int, ...]) -> tuple[Any, Any]:
    for name, apply in (("weight", torch.mul), ("bias", torch.add)):
        if bound.get(name) is not None:
            own = replay.values[bound[name].value]
            y = apply(y, own.reshape(*own.shape, *tail))
    rest = [None] * (len(op.outs) - 1)
    if not op.many:
        return y, m.float()
    return [y, *(torch.zeros((), dtype=y.dtype, device=y.device) for _ in rest)], [m.float(), *rest]


def attention(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """Attention with the dense scale: a cut head dimension is made up for in the queries."""
    q, v = replay.values[op.refs()[0]], replay.values[op.refs()[2]]
    if kwargs.get("scale") is None:
        kwargs = {**kwargs, "scale": q.shape[-1] ** -0.5}
    m_q, m_v = (replay.mask_operand(Ref(op.refs()[i])) for i in (0, 2))
    rows = m_q.amax(-1, keepdim=True)
    columns = m_v.amax(-2, keepdim=True)
    if columns.dim() > 2 and columns.shape[-3] != rows.shape[-3]:
        columns = columns.repeat_interleave(rows.shape[-3] // columns.shape[-3], -3)
    result = execute(op, args, kwargs)
    return result, (rows * columns).expand(*result.shape[:-1], v.shape[-1])


def batch_norm(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """Channels stay apart; batch statistics are taken over what is kept."""
    bound = bind(op)
    m, rest = replay.mask_of(op, "input"), [None] * (len(op.outs) - 1)
    if not (bound.get("training") or bound["running_mean"] is None):
        result = execute(op, args, kwargs)
        return (list(result), [m, *rest]) if op.many else (result, m)
    x, dims = replay.values[bound["input"].value], (0, *range(2, m.dim()))
    w = m.to(x.dtype)
    count = w.sum(dims, keepdim=True).clamp_min(1)
    y = (x - x.sum(dims, keepdim=True) / count) * w
    y = y * ((y**2).sum(dims, keepdim=True) / count + bound["eps"]).rsqrt()
    return _affine(replay, op, bound, y, w, (1,) * (x.dim() - 2))


def glu(replay: MaskedReplay, op: Op, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor]:
    """The gated half's mask is the gate's."""
    m = replay.mask_of(op, "self")
    return execute(op, args, kwargs), m.chunk(2, int(bind(op)["dim"]))[0]


def reduced(x: Tensor, bound: dict, how: Callable) -> Tensor:
    """Apply a reduction over the dimensions that an operator was given, all when none."""
    given = bound.get("dim")
    dims = (
        tuple(range(x.dim()))
        if given is None or given == []
        else tuple(given)
        if isinstance(given, list | tuple)
        else (given,)
    )
    return how(x, dims, keepdim=bool(bound.get("keepdim")))


STATISTICS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "mean": mean,
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), variance),
    **dict.fromkeys(("amax", "amin", "logsumexp", "max", "min", "aminmax"), extremum),
    **dict.fromkeys(("mse_loss", "smooth_l1_loss", "huber_loss", "soft_margin_loss", "binary_cross_entropy"), loss),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax"), softmax),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "_fused_rms_norm", "rms_norm"), layer_norm),
    "native_group_norm": group_norm,
    "scaled_dot_product_attention": attention,
    "glu": glu,
    **dict.fromkeys(
        (
            "batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
            "_batch_norm_no_update",
        ),
        batch_norm,
    ),
}  # fmt: skip
