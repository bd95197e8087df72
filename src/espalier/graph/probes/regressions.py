"""Kinds of layers: how a call with a weight of the model becomes a linear regression.

    rows of the regression     sampled positions of the output: (sample, pixel), token
    its features               what the weight multiplies there: a patch, a token, a normalised channel
    its outputs                what the layer computes there, before anything is added

Convolutions of every dimension, grouped and transposed; products with a matrix; the scale of a norm layer, which is a
regression of every channel on itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Call = dict[str, Any]  # the arguments of a function by name
_SYNONYMS = {"other": "weight", "mat2": "weight", "mat1": "input"}
Rows = tuple[Tensor, ...]  # indices into every dimension of an output but its channels


@dataclass(frozen=True)
class Kind:
    """One way to apply a weight.

    Attributes:
        arguments: names of the function's arguments, in order.
        features: ``features(call, rows)`` returns (groups, rows, features).
        matrix: ``matrix(weight, groups)`` is the weight as (groups, outputs a group, features), a view where it can.
        restore: ``restore(matrix, shape)`` is the weight of that shape again.
        outputs: the weight's dimension of outputs.
        channels: the dimension of channels in the output, counted from the end; may depend on the weight's rank.
        scales: the weight is a scale a channel.
        rank: the weight's number of dimensions, where only one will do; else 0.
        commutes: the function takes input and weight in either order.
        fits: whether a call is of this kind indeed.
    """

    arguments: tuple[str, ...]
    features: Callable[[Call, Rows], Tensor]
    matrix: Callable[[Tensor, int], Tensor]
    restore: Callable[[Tensor, Sequence[int]], Tensor]
    outputs: int = 0
    channels: Callable[[Tensor], int] = lambda weight: -1
    scales: bool = False
    rank: int = 0
    commutes: bool = False
    fits: Callable[[Call], bool] = lambda call: True

    def bind(self, args: tuple, kwargs: Mapping[str, Any], is_weight: Callable[[Any], bool]) -> Call:
        """Return the arguments by name; a product's factors in the order input, weight."""
        call = {**dict(zip(self.arguments, args, strict=False)), **{_SYNONYMS.get(k, k): v for k, v in kwargs.items()}}
        if self.commutes and is_weight(call.get("input")):
            call["input"], call["weight"] = call.get("weight"), call["input"]
        return call

    def by_position(self, value: Tensor, weight: Tensor) -> Tensor:
        """Return an output, or what is added to one, with its channels last."""
        dim = self.channels(weight)
        if self.scales and weight.dim() > 1:
            return value.flatten(-weight.dim())
        return value.movedim(dim, -1)


# ---- matrix products ------------------------------------------------------------------------------------------------


def _tokens(call: Call, rows: Rows) -> Tensor:
    x = call["input"]
    return x[rows].reshape(1, -1, x.shape[-1])


_PRODUCT = {
    "features": _tokens,
    "matrix": lambda w, _: w.T[None],
    "restore": lambda m, _: m[0].T,
    "outputs": 1,
    "rank": 2,
}

# ---- convolutions ---------------------------------------------------------------------------------------------------


def _conv_channels(weight: Tensor) -> int:
    return 1 - weight.dim()


def _per_dim(value: Any, dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * (dims if len(value) == 1 else 1)


def _padding(call: Call, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the zeros before and after, a spatial dimension."""
    given = call.get("padding", 0)
    if given == "valid":
        given = 0
    if given == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [w // 2 for w in whole], [w - w // 2 for w in whole]
    both = list(_per_dim(given, len(kernel)))
    return both, both


def _taps(kernel: Sequence[int], device: torch.device) -> Tensor:
    """Return the positions of a kernel, (taps, spatial dimensions)."""
    axes = torch.meshgrid(*(torch.arange(k, device=device) for k in kernel), indexing="ij")
    return torch.stack([axis.flatten() for axis in axes], 1)


def _batched(x: Tensor, weight: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
    """Return input and rows of an unbatched convolution as those of a batch of one."""
    if x.dim() == weight.dim():
        return x, rows
    return x[None], (torch.zeros_like(rows[0]), *rows)


def _patches(call: Call, rows: Rows) -> Tensor:
    weight, groups = call["weight"], call.get("groups", 1)
    kernel = weight.shape[2:]
    stride, dilation = (_per_dim(call.get(name, 1), len(kernel)) for name in ("stride", "dilation"))
    before, after = _padding(call, kernel, dilation)
    x, rows = _batched(call["input"], weight, rows)
    x = functional.pad(x, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair])
    taps = _taps(kernel, x.device)
    where = [rows[i + 1][:, None] * stride[i] + taps[None, :, i] * dilation[i] for i in range(len(kernel))]
    found = x.movedim(1, -1)[(rows[0][:, None], *where)]  # (rows, taps, channels)
    return _by_group(found, groups)


def _by_group(found: Tensor, groups: int) -> Tensor:
    """Turn (rows, taps, channels) to (groups, rows, channels a group * taps)."""
    count, taps, channels = found.shape
    split = found.reshape(count, taps, groups, channels // groups)
    return split.permute(2, 0, 3, 1).reshape(groups, count, -1)


def _transposed_patches(call: Call, rows: Rows) -> Tensor:
    """An output position sees the input positions i with i * stride + tap * dilation - padding = position."""
    weight = call["weight"]
    kernel = weight.shape[2:]
    stride, dilation = (_per_dim(call.get(name, 1), len(kernel)) for name in ("stride", "dilation"))
    padding = _per_dim(call.get("padding", 0), len(kernel))
    x, rows = _batched(call["input"], weight, rows)
    taps = _taps(kernel, x.device)
    where, valid = [], torch.ones(len(rows[0]), len(taps), dtype=torch.bool, device=x.device)
    for i in range(len(kernel)):
        reach = rows[i + 1][:, None] + padding[i] - taps[None, :, i] * dilation[i]
        place = reach.div(stride[i], rounding_mode="floor")
        valid &= (reach % stride[i] == 0) & (place >= 0) & (place < x.shape[i + 2])
        where.append(place.clamp(0, x.shape[i + 2] - 1))
    found = x.movedim(1, -1)[(rows[0][:, None], *where)] * valid[:, :, None]
    return _by_group(found, 1)


def _transposed_restore(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    return matrix[0].reshape(shape[1], shape[0], *shape[2:]).movedim(1, 0)


# ---- scales ---------------------------------------------------------------------------------------------------------


def _normalised(normalise: Callable[[Call], Tensor], channel: int) -> Callable[[Call, Rows], Tensor]:
    def features(call: Call, rows: Rows) -> Tensor:
        weight = call["weight"]
        by_position = normalise(call).flatten(-weight.dim()) if channel == -1 else normalise(call).movedim(channel, -1)
        return by_position[rows].T[:, :, None]

    return features


_SCALE = {
    "matrix": lambda w, _: w.reshape(-1, 1, 1),
    "restore": lambda m, shape: m.reshape(tuple(shape)),
    "scales": True,
}
_MUL = Kind(
    ("input", "weight"),
    _normalised(lambda c: torch.broadcast_tensors(c["input"], c["weight"])[0], -1),
    commutes=True,
    **_SCALE,
)

_CONV = Kind(
    ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    _patches,
    lambda w, groups: w.reshape(groups, w.shape[0] // groups, -1),
    lambda m, shape: m.reshape(tuple(shape)),
    channels=_conv_channels,
)
_TRANSPOSED = Kind(
    ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    _transposed_patches,
    lambda w, _: w.movedim(1, 0).reshape(1, w.shape[1], prod((w.shape[0], *w.shape[2:]))),
    _transposed_restore,
    outputs=1,
    channels=_conv_channels,
    fits=lambda call: call.get("groups", 1) == 1,
)

KINDS: dict[str, Kind] = {
    "linear": Kind(
        ("input", "weight", "bias"), _tokens, lambda w, _: w[None], lambda m, shape: m.reshape(tuple(shape)), rank=2
    ),
    "addmm": Kind(("bias", "input", "weight"), **_PRODUCT, fits=lambda c: c.get("alpha", 1) == c.get("beta", 1) == 1),
    "matmul": Kind(("input", "weight"), **_PRODUCT),
    "__matmul__": Kind(("input", "weight"), **_PRODUCT),
    "mm": Kind(("input", "weight"), **_PRODUCT),
    **{f"conv{n}d": _CONV for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _TRANSPOSED for n in (1, 2, 3)},
    "layer_norm": Kind(
        ("input", "normalized_shape", "weight", "bias", "eps"),
        _normalised(lambda c: functional.layer_norm(c["input"], c["normalized_shape"], eps=c.get("eps", 1e-5)), -1),
        **_SCALE,
    ),
    "rms_norm": Kind(
        ("input", "normalized_shape", "weight", "eps"),
        _normalised(lambda c: functional.rms_norm(c["input"], c["normalized_shape"], eps=c.get("eps")), -1),
        **_SCALE,
    ),
    "group_norm": Kind(
        ("input", "num_groups", "weight", "bias", "eps"),
        _normalised(lambda c: functional.group_norm(c["input"], c["num_groups"], eps=c.get("eps", 1e-5)), 1),
        channels=lambda weight: 1,
        **_SCALE,
    ),
    "mul": _MUL,
    "__mul__": _MUL,
}
