"""Pointwise operators: equal positions meet, sizes of one broadcast."""

from __future__ import annotations

from ....core import Role
from ...recording.record import tensor_refs
from ..inference import Call, Dims, Refused
from ..units import constant

_SCALES = {"mul", "mul_", "div", "div_"}


def pointwise(call: Call) -> list[Dims]:
    """Unify all operands along the broadcast shape; every output of that shape has the same dimensions."""
    refs = tensor_refs((call.op.args, call.op.kwargs))
    shape = call.out_shape()
    out: Dims = [constant(n) for n in shape]
    taken = [False] * len(shape)
    role = Role.SCALE if call.op.name.removeprefix("aten.") in _SCALES else Role.SHIFT
    for ref in refs:
        dims = call.of(ref)
        offset = len(shape) - len(dims)
        if offset < 0:
            raise Refused("an operand has more dimensions than the result")
        for d, dim in enumerate(dims, offset):
            if len(dim) != shape[d]:
                continue  # broadcast: a size of one has no units
            call.role(dim, role)
            if taken[d]:
                call.unify(out[d], dim)
            else:
                out[d], taken[d] = dim, True
    return [list(out) if call.out_shape(i) == shape else None for i in range(len(call.op.outs))]  # type: ignore[misc]


def like_first(call: Call) -> list[Dims]:
    """The output has the dimensions of the first operand (fills, copies, dropout)."""
    dims = call.of(tensor_refs(call.op.args)[0])
    shape = call.out_shape()
    if tuple(len(d) for d in dims) != shape:
        raise Refused("the shape changes")
    return [list(dims) if call.out_shape(i) == shape else None for i in range(len(call.op.outs))]  # type: ignore[misc]


def softmax(call: Call) -> list[Dims]:
    """Softmax normalises over one dimension: a statistic."""
    dims = call.dims("self")
    call.statistic(dims[call.dim()])
    return [dims]


def cumulative(call: Call) -> list[Dims]:
    """A running sum: a removed position contributed zero."""
    return [call.dims("self")]


def running(call: Call) -> list[Dims]:
    """Running products and extrema: every position needs all before it; the other dimensions stay."""
    dims = call.dims("self")
    if dims:
        call.freeze(dims[call.dim()], "each position of it needs those before it")
    return [list(dims) for _ in call.op.outs]


def bucketize(call: Call) -> list[Dims]:
    """Which interval each value is in."""
    for dim in call.dims("boundaries"):
        call.freeze(dim, "values are compared with all of it")
    return [call.dims("self")]


def fake_quantize(call: Call) -> list[Dims]:
    """Rounding to a grid, one for the whole tensor, or one a position of ``axis``."""
    dims = call.dims("self")
    for name in ("scale", "zero_point"):
        own = call.dims(name)
        if call["axis"] is not None:
            call.unify(dims[int(call["axis"]) % len(dims)], own[0])
        else:
            for dim in own:
                call.freeze(dim, "it holds one number for the whole tensor")
    return [list(dims) for _ in call.op.outs]


def triangle(call: Call) -> list[Dims]:
    """Upper or lower triangle: the last two dimensions are positions, not channels."""
    dims = call.dims("self")
    for dim in dims[-2:]:
        call.freeze(dim, "positions are compared")
    return [dims]


def glu(call: Call) -> list[Dims]:
    """Gated linear unit: the two halves of a dimension live together."""
    dims = call.dims("self")
    d = call.dim()
    half = len(dims[d]) // 2
    call.unify(dims[d][:half], dims[d][half:])
    dims[d] = dims[d][:half]
    return [dims]


def nothing(call: Call) -> list[Dims]:
    """The outputs carry no units and no operand is constrained (queries of metadata, asserts)."""
    return [[constant(n) for n in call.out_shape(i)] for i in range(len(call.op.outs))]


def leaves_torch(call: Call) -> list[Dims]:
    """Values that Python takes out of PyTorch may come back as anything."""
    return call.refuse("its values leave PyTorch")


_LIKE = (
    "clone _to_copy detach alias lift_fresh lift contiguous bernoulli native_dropout dropout feature_dropout "
    "alpha_dropout rand_like randn_like zeros_like ones_like empty_like full_like fill zero normal uniform "
    "exponential random new_empty_strided to positive conj resolve_conj resolve_neg nan_to_num "
    "_conj _neg_view fill_diagonal_ set_data view_as_real_copy prelu_backward"
).split()
_POINT = (
    "copy where masked_fill clamp prelu _prelu_kernel rrelu rrelu_with_noise hardswish hardsigmoid hardtanh gelu "
    "silu mish elu celu selu leaky_relu softplus threshold log_sigmoid_forward lerp addcmul addcdiv polar complex "
    "floor_divide fmod remainder pow atan2 maximum minimum bitwise_and bitwise_or isnan isinf isfinite angle"
).split()
FAKE_QUANTIZE = (
    "fake_quantize_per_tensor_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams "
    "fake_quantize_per_channel_affine_cachemask _fake_quantize_learnable_per_tensor_affine "
    "_fake_quantize_learnable_per_channel_affine"
).split()
RULES = {
    **dict.fromkeys(_LIKE, like_first),
    **dict.fromkeys(_POINT, pointwise),
    "_softmax": softmax,
    "_log_softmax": softmax,
    "softmax": softmax,
    "log_softmax": softmax,
    "_safe_softmax": softmax,
    "cumsum": cumulative,
    **dict.fromkeys(("cumprod", "cummax", "cummin", "logcumsumexp"), running),
    "bucketize": bucketize,
    **dict.fromkeys(FAKE_QUANTIZE, fake_quantize),
    "tril": triangle,
    "triu": triangle,
    "glu": glu,
    "_assert_async": nothing,
    "_assert_scalar": nothing,
    "_assert_tensor_metadata": nothing,
    "_local_scalar_dense": nothing,
    "numpy": leaves_torch,
}
