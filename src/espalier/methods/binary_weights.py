"""Weights of +1 and -1: what the papers that train with them share.

    sign(w) = +1 where w >= 0, else -1

    w <- clip(w + c (w' - w), -1, 1)       w' is what the optimizer made of w,  c = 1 / sqrt(1.5 / (inputs + outputs))

*Source* of the second line: ``clipping_scaling`` in the code of BinaryConnect, which BinaryNet's shares; c is the
reciprocal of Glorot and Bengio's coefficient (AISTATS 2010). A weight that is c times as large and makes steps c times
as large is the same weight in another unit: that in which Glorot's initial values fill [-1, 1].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..graph.grids import Sign, quantize_inputs_
from .real_weights import Held, Real, used_layers

if TYPE_CHECKING:
    from ..graph import Graph

_PRECISION = 24  # bits of a float32's significand
Scale = Literal["glorot"] | Annotated[float, Field(gt=0)]


def sign(values: Tensor) -> Tensor:
    """Return +1 where a value is 0 or more, else -1.

    >>> sign(torch.tensor([-2.0, -0.0, 3.0]))
    tensor([-1.,  1.,  1.])
    """
    return (values >= 0).to(values.dtype).mul_(2).sub_(1)


def scale_of(real: Real, scale: Scale) -> float:
    """Return c of a layer."""
    return 1 / math.sqrt(1.5 / sum(real.fans)) if scale == "glorot" else scale


def moved(real: Real, after: Tensor, scale: Scale) -> Tensor:
    """Return w after a step, scaled and clipped."""
    return real.value.add(after - real.value, alpha=scale_of(real, scale)).clamp_(-1, 1)


def exact(scales: Tensor, terms: int) -> Tensor:
    """Return scales rounded to so few bits that every sum of ``terms`` times +scale or -scale is exact in float32.

    A sum is scale x integer, with an integer of at most as many bits as ``terms`` has.
    """
    bits = _PRECISION - terms.bit_length()
    significands, exponents = torch.frexp(scales)
    return torch.ldexp((significands * 2**bits).round() / 2**bits, exponents).to(scales.dtype)


def sign_inputs_(model: nn.Module, graph: Graph, state: Held, made: Sign) -> None:
    """Have the layers of a state read signs, all but the network's first: what it reads is the image."""
    first = next(iter(used_layers(model, graph)))
    quantize_inputs_(model, {real.layer: made for real in state if real.layer != first})
