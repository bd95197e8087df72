"""Operators of torchvision's extension: deformable convolution, and pooling over regions."""

from __future__ import annotations

from ....core import Role
from ..inference import Call, Dims
from ..units import constant


def deformable(call: Call) -> list[Dims]:
    """A convolution W (out, in/g, *kernel) whose kernel samples x at offsets: channels are read and made as usual.

    Offsets and their mask are places, in as many groups of channels as they have; with several groups, of offsets or
    of weights, which channels are in which stays as it is.
    """
    x, w, out = call.dims("input"), call.dims("weight"), call.out_shape()
    for name in ("offset", "mask"):
        for dim in call.dims(name):
            call.freeze(dim, "it says where the kernel samples")
    for dim in (x[0], *x[2:], *w[2:]):
        call.freeze(dim, "a convolution slides over it")
    call.role(w[0], Role.PRODUCER)
    call.role(w[1], Role.READER)
    if int(call["groups"]) == int(call["offset_groups"]) == 1:
        call.unify(x[1], w[1])
    else:
        for dim in (x[1], w[1], *(w[:1] if int(call["groups"]) > 1 else ())):
            call.freeze(dim, "a deformable convolution takes it in groups")
    bias = call.dims("bias")[0]
    call.role(bias, Role.SHIFT)
    call.unify(w[0], bias)
    return [[constant(out[0]), w[0], *(constant(n) for n in out[2:])]]


def regions(call: Call) -> list[Dims]:
    """(n, c, h, w) at r regions -> (r, c, height, width): channels stay."""
    x, rois, shape = call.dims("input"), call.dims("rois"), call.out_shape()
    for dim in (x[0], *x[2:], *rois):
        call.freeze(dim, "it says where a region is")
    return [[constant(shape[0]), x[1], *(constant(n) for n in shape[2:])] for _ in call.op.outs]


RULES = {
    "torchvision.deform_conv2d": deformable,
    "torchvision.roi_align": regions,
    "torchvision.roi_pool": regions,
}
