"""BinaryNet: weights and activations of +1 and -1, forward and backward; steps on the real weights behind them.

    forward    s_k = sign(a_{k-1}) sign(w_k);  a_k = BatchNorm(s_k)                 sign(r) = +1 where r >= 0, else -1
    backward   dL/dr = dL/dsign(r) 1[|r| <= 1]  for activations;   dL/dw = dL/dsign(w)  for weights
    update     w <- clip(w - eta c dL/dw, -1, 1)

Source: Courbariaux, Hubara, Soudry, El-Yaniv and Bengio, 2016, arXiv:1602.02830, section 1 and algorithm 1; c, the
layer's own learning rate, from the authors' code.
Differs: (1) the first layer reads the image as it is, in floating point, where the paper reads its eight bits one by
one: the same sum; (2) batch norm and the optimizer are ordinary ones, not the shift-based ones, as in the authors'
Theano code; (3) activations are not drawn at random, as there; (4) a network's first weights are multiplied by c as its
steps are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ...graph.grids import Sign
from ..binary_weights import Scale, moved, scale_of, sign, sign_inputs_
from ..protocol import Context
from ..real_weights import Held, Quantizing, Real, chosen
from ..registry import HYPERPARAMETERS

if TYPE_CHECKING:
    from ...graph import Graph


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class BinaryNet(Quantizing):
    """Train real weights through their signs, with signs between the layers."""

    lr_scale: Scale = "glorot"
    """c: a layer's own, or one number for all"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> Held:
        """Return the state for a stretch of training; the network computes with signs from here on."""
        state = Held(tuple(chosen(model, graph, self)))
        for real in state:
            real.value.mul_(scale_of(real, self.lr_scale)).clamp_(-1, 1)
        sign_inputs_(model, graph, state, Sign())
        self.show(state)
        return state

    def quantized(self, state: Held, real: Real) -> Tensor:
        """Return the signs."""
        return sign(real.value)

    def moved(self, state: Held, real: Real, after: Tensor) -> Tensor:
        """Return w after a step, scaled and clipped."""
        return moved(real, after, self.lr_scale)
