"""Trained ternary quantization: three values a layer, -W_n, 0 and W_p, of which the last two are learned.

    w~ = w / max|w|                                               once, at the start
    w_t = W_p where w~ > d;  0 where |w~| <= d;  -W_n where w~ < -d             d = t max|w~|

    dL/dW_p = sum of dL/dw_t where w~ > d         dL/dw~ = W_p dL/dw_t where w~ > d
    dL/dW_n = -sum of dL/dw_t where w~ < -d                    dL/dw_t where |w~| <= d
                                                           W_n dL/dw_t where w~ < -d

Source: Zhu, Han, Mao and Dally, ICLR 2017, arXiv:1612.01064, section 3, equations 6 to 9.
Differs: (1) dL/dW_n has the sign that equation 6 gives it, which equation 7 leaves out; (2) W_p and W_n begin at the
mean of |w| on their side, where the authors' code begins at 1; they are learned by Adam with the step's learning rate,
as there, and its steps are relative to where they began; (3) they stay above zero, at a thousandth of that beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from ..protocol import Context, Stored
from ..real_weights import Held, Quantizing, Real, chosen
from ..registry import HYPERPARAMETERS

if TYPE_CHECKING:
    from ...graph import Graph

_LEAST = 1e-3  # of a coefficient's beginning


@dataclass(eq=False)
class _State(Held):
    """The real weights, and a layer's two coefficients.

    Attributes:
        beginnings: (layers, 2): where W_p and W_n began.
        factors: (layers, 2): what they are of it now.
        adam: of the factors.
    """

    beginnings: Tensor
    factors: nn.Parameter
    adam: torch.optim.Adam

    def coefficients(self, real: Real) -> tuple[Tensor, Tensor]:
        """Return W_p and W_n of a layer."""
        positive, negative = (self.beginnings * self.factors.detach())[self.reals.index(real)].to(real.value.dtype)
        return positive, negative


@checked(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class TrainedTernary(Quantizing):
    """Train real weights through three values, and two of those values."""

    HAS_ZERO: ClassVar[bool] = True

    ends: bool = False
    """whether the first and the last of all layers are meant too; the paper leaves them as they are"""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """t: share of the largest weight below which a weight is zero"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Return the state for a stretch of training; the network shows three values a layer from here on."""
        reals = tuple(chosen(model, graph, self))
        beginnings = torch.stack([self.means(real.value) for real in reals])
        for real in reals:
            real.value.div_(real.value.abs().max().clamp_min(torch.finfo(real.value.dtype).tiny))
        factors = nn.Parameter(torch.ones_like(beginnings))
        state = _State(reals, beginnings, factors, torch.optim.Adam([factors]))
        self.show(state)
        return state

    def sides(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return where weights are above d, and where they are below -d."""
        edge = self.threshold * values.abs().max()
        return values > edge, values < -edge

    def means(self, values: Tensor) -> Tensor:
        """Return the mean of |w| above d, and below -d; that of all where there is none."""
        whole = values.abs().mean()
        found = [values[side].abs().mean() if bool(side.any()) else whole for side in self.sides(values)]
        return torch.stack(found).float()

    def quantized(self, state: _State, real: Real) -> Tensor:
        """Return W_p, 0 and -W_n."""
        (above, below), (positive, negative) = self.sides(real.value), state.coefficients(real)
        return above * positive - below * negative

    @torch.no_grad()
    def gradients(self, state: _State, lr: float) -> None:
        """Learn the coefficients; put w~ into the network, and its gradient in place of w_t's."""
        found = []
        for real in state:
            above, below = self.sides(real.value)
            found.append(torch.stack([real.gradient[above].sum(), -real.gradient[below].sum()]).float())
        super().gradients(state, lr)
        state.factors.grad = torch.stack(found) * state.beginnings
        state.adam.param_groups[0]["lr"] = lr
        state.adam.step()
        state.factors.clamp_(min=_LEAST)

    def gradient(self, state: _State, real: Real, lr: float) -> Tensor:
        """Return dL/dw~."""
        (above, below), (positive, negative) = self.sides(real.value), state.coefficients(real)
        return real.gradient * torch.where(above, positive, torch.where(below, negative, torch.ones_like(positive)))

    def stored(self, state: _State) -> Stored:
        """Return the real weights, the coefficients and their moments."""
        moments = state.adam.state[state.factors]
        own = {"beginnings": state.beginnings, "factors": state.factors.detach()}
        return {**super().stored(state), **own, **{f"adam/{k}": v for k, v in moments.items()}}

    def resume(self, state: _State, stored: Stored) -> None:
        """Go on from a checkpoint."""
        tensors = {name: value for name, value in stored.items() if isinstance(value, Tensor)}
        state.beginnings = tensors["beginnings"].to(state.beginnings.device)
        with torch.no_grad():
            state.factors.copy_(tensors["factors"])
        moments = {name.removeprefix("adam/"): value for name, value in tensors.items() if name.startswith("adam/")}
        if moments:
            state.adam.state[state.factors] = moments
        super().resume(state, stored)
