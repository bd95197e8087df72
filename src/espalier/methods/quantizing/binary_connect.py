"""BinaryConnect: forward and backward with weights of +1 and -1, steps on the real weights behind them.

    deterministic   w_b = +1 where w >= 0, else -1
    stochastic      w_b = +1 with probability sigma(w) = clip((w + 1) / 2, 0, 1), else -1, drawn for every batch

    w <- clip(w - eta c dL/dw_b, -1, 1)

Source: Courbariaux, Bengio and David, NeurIPS 2015, arXiv:1511.00363, sections 2.2 to 2.4 and algorithm 1; c from
the authors' code.
Differs: (1) the network is evaluated with w_b of the deterministic kind after stochastic training too (the paper's
method 1), where the authors take the real weights (method 2): those are no smaller file; (2) biases and norms are
trained with the others' rate, as in the authors' code; (3) a network's first weights are multiplied by c as its steps
are, where the authors draw them from [-1, 1]; (4) the optimizer is the step's, and c multiplies all that it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic.dataclasses import dataclass as checked
from torch import Generator, Tensor, nn

from ..binary_weights import Scale, moved, scale_of, sign
from ..protocol import Context
from ..real_weights import Held, Quantizing, Real, chosen
from ..registry import HYPERPARAMETERS

if TYPE_CHECKING:
    from ...graph import Graph


@dataclass(eq=False)
class _State(Held):
    """The real weights; what draws; and what takes the drawing off the network."""

    generator: Generator
    close: Callable[[], None] = lambda: None


@checked(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class BinaryConnect(Quantizing):
    """Train real weights through their signs."""

    drawn: Literal["deterministic", "stochastic"] = "deterministic"
    """whether a training pass takes the sign of a weight, or draws it"""
    lr_scale: Scale = "glorot"
    """c: a layer's own, or one number for all"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Return the state for a stretch of training; the network shows signs from here on."""
        state = _State(tuple(chosen(model, graph, self)), context.generator)
        for real in state:
            real.value.mul_(scale_of(real, self.lr_scale)).clamp_(-1, 1)
        self.show(state)
        if self.drawn == "stochastic":
            state.close = model.register_forward_pre_hook(_drawing(state)).remove
        return state

    def quantized(self, state: _State, real: Real) -> Tensor:
        """Return the signs."""
        return sign(real.value)

    def moved(self, state: _State, real: Real, after: Tensor) -> Tensor:
        """Return w after a step, scaled and clipped."""
        return moved(real, after, self.lr_scale)

    def stop(self, state: _State) -> None:
        """Leave the signs in the network, and draw no more."""
        state.close()


def drawn(values: Tensor, generator: Generator) -> Tensor:
    """Return +1 with probability clip((w + 1) / 2, 0, 1), else -1, for every w."""
    chance = torch.rand(values.shape, generator=generator, dtype=torch.float32).to(values.device)
    return torch.where(chance < (values + 1) / 2, 1.0, -1.0).to(values.dtype)


def _drawing(state: _State) -> Callable[[nn.Module, Any], None]:
    """Return what draws the weights before a training pass; evaluation takes what is there, the signs."""

    @torch.no_grad()
    def draw(model: nn.Module, inputs: Any) -> None:
        if model.training:
            for real in state:
                real.shown.copy_(drawn(real.value, state.generator))

    return draw
