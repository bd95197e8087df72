"""Pools, upsampling, sliding blocks, spectra: channels stay, space is constant."""

from __future__ import annotations

from ..inference import Call, Dims
from ..units import constant, merge


def _space(rank: int):
    """Make the rule of an operator over the last ``rank`` dimensions."""

    def rule(call: Call) -> list[Dims]:
        x = call.of(call.op.args[0])
        for dim in x[len(x) - rank :]:
            call.freeze(dim, "it is treated as space")
        kept = x[: len(x) - rank]
        return [[*kept, *(constant(n) for n in call.out_shape(i)[len(kept) :])] for i in range(len(call.op.outs))]

    rule.__doc__ = f"Channels stay, the last {rank} dimensions are space."
    return rule


def fractional(call: Call) -> list[Dims]:
    """A pool whose windows are drawn for every channel: as many numbers as channels."""
    x, samples = call.dims("self"), call.dims("random_samples")
    space = 3 if "3d" in call.op.name else 2
    call.unify(x[-1 - space], samples[1])
    return _space(space)(call)


def im2col(call: Call) -> list[Dims]:
    """(n, c, h, w) -> (n, c * kernel, blocks)."""
    x = call.dims("self")
    for dim in x[-2:]:
        call.freeze(dim, "it is treated as space")
    shape = call.out_shape()
    return [[*x[:-3], merge(x[-3], constant(shape[-2] // len(x[-3]))), constant(shape[-1])]]


def col2im(call: Call) -> list[Dims]:
    """(n, c * kernel, blocks) -> (n, c, h, w)."""
    x, shape = call.dims("self"), call.out_shape()
    channels, inner = call.split(x[-2], shape[-3], len(x[-2]) // shape[-3])
    call.freeze(inner, "it becomes space")
    return [[*x[:-2], channels, constant(shape[-2]), constant(shape[-1])]]


def grid_sampler(call: Call) -> list[Dims]:
    """Sampling at given points: channels stay."""
    x, grid = call.dims("input"), call.dims("grid")
    for dim in [*x[2:], *grid[1:]]:
        call.freeze(dim, "it is treated as space")
    return [[*x[:2], *(constant(n) for n in call.out_shape()[2:])]]


def affine_grid(call: Call) -> list[Dims]:
    """Places to sample at, from one matrix a sample; of the size asked for, batch and space are used, channels not."""
    for dim in call.dims("theta"):
        call.freeze(dim, "it says where to sample")
    return [[constant(n) for n in call.out_shape()]]


def spectrum(call: Call) -> list[Dims]:
    """A Fourier transform mixes its dimensions, the others stay."""
    x, shape = call.dims("self"), call.out_shape()
    for d in call["dim"]:
        call.freeze(x[int(d)], "a Fourier transform mixes it")
        x[int(d)] = constant(shape[int(d)])
    return [x]


_SPACE = {
    1: "adaptive_avg_pool1d avg_pool1d adaptive_max_pool1d max_pool1d max_pool1d_with_indices reflection_pad1d "
    "replication_pad1d upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d",
    2: "adaptive_avg_pool2d _adaptive_avg_pool2d avg_pool2d adaptive_max_pool2d max_pool2d max_pool2d_with_indices "
    "reflection_pad2d replication_pad2d upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d "
    "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa",
    3: "adaptive_avg_pool3d _adaptive_avg_pool3d avg_pool3d adaptive_max_pool3d max_pool3d max_pool3d_with_indices "
    "reflection_pad3d replication_pad3d upsample_nearest3d _upsample_nearest_exact3d upsample_trilinear3d",
}
RULES = {
    **{name: _space(rank) for rank, names in _SPACE.items() for name in names.split()},
    "im2col": im2col,
    "col2im": col2im,
    "fractional_max_pool2d": fractional,
    "fractional_max_pool3d": fractional,
    "grid_sampler_2d": grid_sampler,
    "grid_sampler_3d": grid_sampler,
    "affine_grid_generator": affine_grid,
    "_fft_r2c": spectrum,
    "_fft_c2c": spectrum,
    "_fft_c2r": spectrum,
}
