"""XNOR-Net: weights of +a and -a with one a a filter, inputs of K and -K with one K a place in the image.

    W ~ a B,  B = sign(W),  a = mean|W| of a filter              I * W ~ (sign(I) * B) K a,  K = box filter of mean|I|

    dL/dW_i = dL/dW~_i (1 / n + a 1[|W_i| <= 1])       n weights a filter         dL/dI = dL/dsign(I) 1[|I| <= 1]

    norm ─ signs of the input ─ convolution ─ pooling,  in this order; the first and the last layer stay as they are

Source: Rastegari, Ordonez, Redmon and Farhadi, ECCV 2016, arXiv:1603.05279, sections 3.1 and 3.2, equations 6 and 11,
and algorithm 1 for the gradient.
Differs: (1) real weights are clipped to [-1, 1], which the authors' code does and the paper does not say; that code
also subtracts the mean over input channels and multiplies the gradient by n, which Adam does not notice: neither is
done here, so train with adamw; (2) a is rounded to as many bits as let a sum of n terms be exact in float32 (13 at
n = 1,152), so that packed words give the very numbers that floating point gives; (3) K has no gradient, as in the
authors' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ...graph.grids import Sign
from ..binary_weights import exact, sign, sign_inputs_
from ..protocol import Context
from ..real_weights import Held, Quantizing, Real, chosen
from ..registry import HYPERPARAMETERS

if TYPE_CHECKING:
    from ...graph import Graph


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class XnorNet(Quantizing):
    """Train real weights through scaled signs, with scaled signs between the layers."""

    ends: bool = False
    """whether the first and the last of all layers are meant too; the paper leaves them as they are"""
    inputs: bool = True
    """whether layers read signs: without, it is the paper's binary-weight network"""
    scaled: bool = True
    """whether those signs are scaled by K"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> Held:
        """Return the state for a stretch of training; the network computes with signs from here on."""
        state = Held(tuple(chosen(model, graph, self)))
        for real in state:
            real.value.clamp_(-1, 1)
        if self.inputs:
            sign_inputs_(model, graph, state, Sign(scaled=self.scaled))
        self.show(state)
        return state

    def quantized(self, state: Held, real: Real) -> Tensor:
        """Return a sign(W)."""
        return factors(real.value) * sign(real.value)

    def gradient(self, state: Held, real: Real, lr: float) -> Tensor:
        """Return dL/dW, through the sign and through a; clipped weights are all where the sign lets it through."""
        return real.gradient * (1 / real.value[0].numel() + factors(real.value))

    def moved(self, state: Held, real: Real, after: Tensor) -> Tensor:
        """Return W after a step, clipped."""
        return after.clamp(-1, 1)


def factors(weight: Tensor) -> Tensor:
    """Return a of every filter, of a shape that multiplies its weights."""
    means = weight.abs().mean(tuple(range(1, weight.dim())), keepdim=True)
    return exact(means, weight[0].numel())
