"""Rounding that training can go through: the forward pass is a step function, the gradient is the identity's, clipped.

Plain operators make up the forward pass, in the input's own precision, so that every exporter knows them. Numbers are
divided by the step, not multiplied by its inverse: as the runtimes' QuantizeLinear does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Rounded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, step: Tensor | float, zero_point: Tensor | int, lowest: int, highest: int) -> Tensor:
        return ((x / step).round() + zero_point).clamp(lowest, highest).sub(zero_point).mul(step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, step, zero_point, lowest, highest = inputs
        if ctx.needs_input_grad[0]:
            level = (x / step).round() + zero_point
            ctx.save_for_backward((level >= lowest) & (level <= highest))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None, None, None


class _Sign(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return (x >= 0).to(x.dtype).mul(2).sub(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= 1)


def rounded(x: Tensor, step: Tensor | float, zero_point: Tensor | int, lowest: int, highest: int) -> Tensor:
    """Return the nearest numbers on a grid; ties go to the even integer.

        (clamp(round(x / step) + zero_point, lowest, highest) - zero_point) step

    The gradient passes where nothing was clamped, and is zero elsewhere; step and zero point get none.

    *Source*: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3; Bengio et al., arXiv:1308.3432, for the gradient.

    Args:
        x: any shape.
        step: above zero; one number, or what broadcasts with ``x``.
        zero_point: the integer that stands for zero, likewise.
        lowest, highest: integers that the grid has.
    """
    return _Rounded.apply(x, step, zero_point, lowest, highest)  # type: ignore[return-value]


def sign(x: Tensor) -> Tensor:
    """Return +1 where ``x >= 0`` and -1 elsewhere; the gradient passes where ``|x| <= 1``.

    *Source*: Hubara et al. (BinaryNet), NeurIPS 2016, arXiv:1602.02830, section 1.3.
    """
    return _Sign.apply(x)  # type: ignore[return-value]
