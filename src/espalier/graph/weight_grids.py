"""Weights on a grid: a tensor's numbers are a step, or one a channel, times integers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import GridError
from .input_hooks import check_bits


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightGrid:
    """A tensor's numbers are ``step x integer``: -2^(bits-1) to 2^(bits-1) - 1.

    Attributes:
        bits: 2 to 16.
        step: one number, or (channels,); in float32, or in float64 for a tensor of these.
        axis: the channels' dimension; 0 for one step.

    Raises:
        GridError: a number is out of its range.
    """

    bits: int
    step: Tensor
    axis: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no grid."""
        check_bits(self.bits)
        if not isinstance(self.step, Tensor) or self.step.dtype not in (torch.float32, torch.float64):
            raise GridError("a weight's step is a tensor of float32 or float64")
        if self.step.dim() > 1 or type(self.axis) is not int or self.axis < 0 or not self.step.dim() and self.axis:
            raise GridError("a weight's step is one number, or one a channel of the dimension that axis says")
        if not bool((self.step.isfinite() & (self.step >= torch.finfo(torch.float32).tiny)).all()):
            raise GridError("a weight's steps are finite and above zero")

    @property
    def lowest(self) -> int:
        """The smallest integer."""
        return -(1 << self.bits - 1)

    @property
    def highest(self) -> int:
        """The largest integer."""
        return (1 << self.bits - 1) - 1

    def over(self, dims: int) -> Tensor:
        """Return the steps, of a shape that broadcasts with a tensor of ``dims`` dimensions."""
        return over(self.step, self.axis, dims)

    def integers(self, tensor: Tensor) -> Tensor:
        """Return the nearest integers (int32), of the tensor's shape."""
        own = tensor.detach().to(self.step.dtype)
        return (own / self.over(own.dim()).to(own.device)).round_().clamp_(self.lowest, self.highest).int()

    def value(self, integers: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the numbers that integers stand for."""
        return on_grid(integers, self.step.to(integers.device), self.axis, dtype)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor's numbers are all on the grid, exactly."""
        if self.step.dtype != step_type(tensor.dtype):
            return False
        return torch.equal(self.value(self.integers(tensor), tensor.dtype), tensor.detach())


def step_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type that steps have, and products are computed in, for weights of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def on_grid(integers: Tensor, step: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    """Return ``step x integers``: one rounding to float32, one to ``dtype``, the same on every machine."""
    return (integers.to(step.dtype) * over(step, axis, integers.dim())).to(dtype)


def over(step: Tensor, axis: int, dims: int) -> Tensor:
    """Return steps of a dimension, of a shape that broadcasts with a tensor of ``dims`` dimensions."""
    if not step.dim():
        return step
    return step.reshape([-1 if dim == axis % dims else 1 for dim in range(dims)])
