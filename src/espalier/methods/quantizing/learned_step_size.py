"""Learned step size quantization: the steps of weights and of inputs are trained with the weights.

    v = w / s,   w_q = s clip(round(v), -Q_n, Q_p)
    dL/ds = g sum dL/dw_q x { -Q_n  where v <= -Q_n,   round(v) - v  between,   Q_p  where v >= Q_p }
    dL/dw = dL/dw_q  where -Q_n < v < Q_p,  0 elsewhere;       g = 1 / sqrt(N Q_p)

Source: Esser et al., Learned Step Size Quantization, ICLR 2020, arXiv:1902.08153, section 2, equations 1 to 3.
Differs: (1) a weight has a step a channel, and N counts a channel's weights; of an input, N counts one sample's
numbers; (2) steps begin where the error is least, in the place of 2 mean |w| / sqrt(Q_p); (3) steps have momentum 0.9
and no decay, whatever the optimizer of the weights; (4) they never fall below a thousandth of where they began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from ...graph.carried_grids import Grids
from ...graph.grids import Grid, Input, WeightGrid
from ...graph.input_hooks import hook_of
from ...transforms.calibration import Samples, weight_grid
from ...transforms.layers import Layer
from ..on_grids import Held, OnGrids
from ..registry import HYPERPARAMETERS

_LEAST = 1e-3  # of the step that it began with
_WEIGHT, _INPUT, _SPEED, _FIRST = "gradient/", "input/", "speed/", "first/"


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
        return (x / step).round().clamp(lowest, highest).mul(step).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, step, ctx.lowest, ctx.highest = inputs
        ctx.save_for_backward(x, step)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        x, step = ctx.saved_tensors
        levels = x / step
        slope = step_slope(levels, ctx.lowest, ctx.highest)
        inside = (levels > ctx.lowest) & (levels < ctx.highest)
        factor = 1 / math.sqrt(max(x[0].numel(), 1) * ctx.highest)
        return grads[0] * inside, (grads[0] * slope).sum().to(step.dtype) * factor, None, None


def learned(x: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
    """Return numbers on a grid whose step has a gradient: that of equation 3, times g.

    Args:
        x: any shape, samples first.
        step: one number, above zero.
        lowest, highest: -Q_n and Q_p.
    """
    return _Learned.apply(x, step, lowest, highest)  # type: ignore[return-value]


def step_slope(levels: Tensor, lowest: int, highest: int) -> Tensor:
    """Return the derivative of the quantized number by the step, at ``levels`` = v."""
    return torch.where(levels <= lowest, lowest, torch.where(levels >= highest, highest, levels.round() - levels))


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class LearnedStepSize(OnGrids):
    """Train weights, their steps, and the steps of static inputs.

    Attributes:
        momentum: of the steps.
        step_lr_ratio: their learning rate, as a share of that of the weights.
    """

    weight_bits: int = Field(default=4, ge=2, le=16)
    input_bits: int | None = Field(default=4, ge=2, le=16)
    ends_bits: int | None = Field(default=8, ge=2, le=16)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    step_lr_ratio: float = Field(default=1.0, gt=0)

    def started(self, grids: Grids, samples: Mapping[str, Samples]) -> Grids:
        """Return the grids with inputs' zero points at zero: signed where something below zero was seen."""
        inputs: dict[str, Input] = {}
        for path, made in grids.inputs.items():
            if isinstance(made, Grid) and samples[path].low < 0:
                step = weight_grid(samples[path].numbers, made.bits, None, "mse").step
                inputs[path] = Grid(bits=made.bits, step=float(step), signed=True)
            else:
                inputs[path] = made
        return Grids(inputs, grids.weights)

    def opened(self, state: Held, layers: Mapping[str, Layer]) -> None:
        """Give the inputs' steps gradients."""
        for path, grid in state.inputs.items():
            device = next(iter(state.real.values())).device
            step = torch.tensor(grid.step, device=device).requires_grad_()
            state.more[_INPUT + path] = step
            state.more[_FIRST + _INPUT + path] = step.detach().clone()
        self.resumed(state)
        for name, grid in state.grids.items():
            state.more[_FIRST + name] = grid.step.clone()

    def gradient(self, state: Held, name: str, gradient: Tensor, levels: Tensor, grid: WeightGrid) -> Tensor:
        """Return dL/dw, and keep dL/ds."""
        slope = gradient * step_slope(levels, grid.lowest, grid.highest)
        channels = grid.step.numel()
        own = slope.movedim(grid.axis, 0).reshape(channels, -1).sum(1).reshape(grid.step.shape)
        state.more[_WEIGHT + name] = own / math.sqrt(slope.numel() / channels * grid.highest)
        return gradient * ((levels > grid.lowest) & (levels < grid.highest))

    def moved(self, state: Held, lr: float) -> None:
        """Move all steps by gradient descent with momentum."""
        rate = lr * self.step_lr_ratio
        for name, grid in state.grids.items():
            gradient = state.more.pop(_WEIGHT + name, None)
            if gradient is not None:
                state.grids[name] = replace(grid, step=self._descended(state, name, grid.step, gradient, rate))
        ranks = state.context.sum_ranks(torch.ones(()))
        for path, grid in list(state.inputs.items()):
            step = state.more[_INPUT + path]
            if step.grad is not None:
                gradient = state.context.sum_ranks(step.grad) / ranks.to(step.device)
                step.data.copy_(self._descended(state, _INPUT + path, step.detach(), gradient, rate))
                step.grad = None
            self.seen(state, path, replace(grid, step=float(step)))

    def _descended(self, state: Held, name: str, step: Tensor, gradient: Tensor, rate: float) -> Tensor:
        speed = state.more.get(_SPEED + name)
        speed = gradient.clone() if speed is None else self.momentum * speed + gradient
        state.more[_SPEED + name] = speed
        least = state.more[_FIRST + name].to(step.device) * _LEAST
        return torch.maximum(step - rate * speed, least)

    def resumed(self, state: Held) -> None:
        """Let the inputs be quantized with the steps that have gradients."""
        for path, grid in state.inputs.items():
            step, hook = state.more[_INPUT + path], hook_of(state.model.get_submodule(path))
            assert hook is not None
            hook.instead = lambda x, step=step, grid=grid: learned(x, step, grid.lowest, grid.highest)

    def stop(self, state: Held) -> None:
        """Leave weights and inputs on their grids."""
        for path in state.inputs:
            hook = hook_of(state.model.get_submodule(path))
            if hook is not None:
                hook.instead = None
