"""What a tensor is made of, when training knows more than its numbers: a codebook, or integers and a step.

Whoever clusters, quantizes or binarises hands these over by tensor name; `encode` writes them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core import KindError
from ..graph.weight_grids import on_grid, step_type
from .symbols import Coder
from .tables import LARGEST_ALPHABET


@dataclass(frozen=True, kw_only=True, eq=False)
class Codebook:
    """Weights that share few values: ``value[p] = codebook[symbols[p]]``, or ``codebook[channel of p, symbols[p]]``.

    Attributes:
        symbols: integers in [0, k), of the tensor's shape.
        codebook: (k,), or (channels, k) for a codebook a channel; in the tensor's own type. Ascending values help the
            context model.
        axis: the channels' dimension.
        coder: ``"packed"`` keeps every symbol at its place (1 bit of a binary tensor, 2 of a ternary one); ``"best"``
            is the smallest of all; or one coder's name.
    """

    symbols: Tensor
    codebook: Tensor
    axis: int = 0
    coder: Coder = "best"

    def __post_init__(self) -> None:
        _check_integers("Codebook", "symbols", self.symbols)
        if self.codebook.ndim not in (1, 2) or not self.codebook.numel():
            raise KindError("a Codebook's codebook is a tensor (k,) or (channels, k), and not empty")
        if self.codebook.shape[-1] > LARGEST_ALPHABET:
            raise KindError(f"a codebook has {LARGEST_ALPHABET} entries at most, not {self.codebook.shape[-1]}")
        if self.codebook.ndim == 2:
            _check_channels("Codebook", self.symbols, self.axis, len(self.codebook))
        if self.symbols.numel() and not 0 <= int(self.symbols.min()) <= int(self.symbols.max()) < self.entries:
            raise KindError(
                f"a Codebook's symbols are the places of its {self.entries} entries: 0 to {self.entries - 1}"
            )

    @property
    def entries(self) -> int:
        """Return how many values a weight can have."""
        return self.codebook.shape[-1]

    def value(self) -> Tensor:
        """Return the tensor that is meant."""
        symbols = self.symbols.long()
        if self.codebook.ndim == 1:
            return self.codebook[symbols]
        return self.codebook[_channel(symbols, self.axis), symbols]


@dataclass(frozen=True, kw_only=True, eq=False)
class Uniform:
    """Weights on a grid: ``value = step x integers``, computed in float32 (float64 for its own) and then rounded.

    Attributes:
        integers: of the tensor's shape, with 0 for 0: an affine quantizer's zero point is taken off before.
        step: one number, or (channels,).
        axis: the channels' dimension.
        dtype: of the tensor.
        coder: as in `Codebook`.
    """

    integers: Tensor
    step: Tensor
    axis: int = 0
    dtype: torch.dtype = torch.float32
    coder: Coder = "best"

    def __post_init__(self) -> None:
        _check_integers("Uniform", "integers", self.integers)
        if not self.dtype.is_floating_point:
            raise KindError(f"Uniform is for floating-point tensors, not {self.dtype}")
        if self.step.dtype != step_type(self.dtype):
            raise KindError(
                f"Uniform's step for {self.dtype} is a {step_type(self.dtype)} tensor, not {self.step.dtype}"
            )
        if self.step.ndim > 1:
            raise KindError("Uniform's step is one number, or one a channel")
        if self.step.ndim == 1:
            _check_channels("Uniform", self.integers, self.axis, len(self.step))
        if self.integers.numel():
            low, high = int(self.integers.min()), int(self.integers.max())
            if high - low >= LARGEST_ALPHABET or max(-low, high) >= 1 << 23:
                raise KindError(
                    f"Uniform's integers span {low} to {high}: {LARGEST_ALPHABET} values at most, below 2^23"
                )

    def value(self) -> Tensor:
        """Return the tensor that is meant."""
        return on_grid(self.integers, self.step, self.axis, self.dtype)


def binary(positive: Tensor, scale: Tensor, *, coder: Coder = "packed") -> Codebook:
    """Return binary weights: ``+scale`` where ``positive``, ``-scale`` elsewhere; one bit each.

    *Source*: Rastegari et al. (XNOR-Net), arXiv:1603.05279, section 3.1, for the scale a filter.

    Args:
        positive: bool, of the tensor's shape.
        scale: one number, or one a filter (first dimension).
        coder: as in `Codebook`.
    """
    codebook = torch.stack([-scale, scale], dim=-1)
    return Codebook(symbols=positive.to(torch.uint8), codebook=codebook, coder=coder)


def ternary(signs: Tensor, negative: Tensor, positive: Tensor, *, coder: Coder = "packed") -> Codebook:
    """Return ternary weights: ``-negative``, 0 or ``+positive`` by sign; two bits each.

    *Source*: Zhu et al. (trained ternary quantization), arXiv:1612.01064, equation 6, for two scales.

    Args:
        signs: -1, 0 and 1, of the tensor's shape.
        negative: one number, or one a filter (first dimension).
        positive: likewise.
        coder: as in `Codebook`.
    """
    codebook = torch.stack([-negative, torch.zeros_like(positive), positive], dim=-1)
    return Codebook(symbols=(signs + 1).to(torch.uint8), codebook=codebook, coder=coder)


def _channel(symbols: Tensor, axis: int) -> Tensor:
    size = [-1 if dim == axis % symbols.ndim else 1 for dim in range(symbols.ndim)]
    return torch.arange(symbols.shape[axis]).reshape(size)


def _check_integers(kind: str, name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.is_floating_point() or tensor.is_complex():
        raise KindError(f"{kind}'s {name} are a tensor of integers")


def _check_channels(kind: str, tensor: Tensor, axis: int, channels: int) -> None:
    if not -tensor.ndim <= axis < tensor.ndim or tensor.shape[axis] != channels:
        raise KindError(
            f"{kind} has values for {channels} channels, and dimension {axis} of its tensor {tuple(tensor.shape)} has "
            "another number"
        )
