"""Layers whose weights stay packed, one or two bits each.

    signs in      x ──signs──▶ bits ──XOR with the weights' bits, popcount──▶ integers ──scale, bias──▶ output
    numbers in    bits ──unpacked for the call──▶ weights ──▶ the layer's own forward ──▶ output

The first computes with words, the second only stores them: a sum of numbers with signs is a sum of numbers.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ..graph.input_hooks import InputHook, Sign, set_aside_
from .packed_weights import FewValues, pack, unpacked
from .popcount import Bits, differing, in_words


class UnpackedForCall(nn.Module):
    """A layer whose weights are unpacked for every call, and then forgotten.

    Args:
        layer: what it does; copied without its weight.
        made: its weight.
        hook: what its input is quantized by, if it is.
    """

    rows: Tensor
    values: Tensor

    def __init__(self, layer: nn.Module, made: FewValues, hook: InputHook | None) -> None:
        super().__init__()
        self.layer, self.hook = _without_weight(layer), hook
        self.bits, self.count = made.bits, made.symbols.shape[1]
        self.shape = tuple(layer.weight.shape)  # type: ignore[arg-type]  every kind that is packed has one
        self.register_buffer("rows", pack(made.symbols, made.bits))
        self.register_buffer("values", _once(made.values))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Do what the layer does."""
        weight = unpacked(self.rows, self.values, self.count).reshape(self.shape)
        (x,), _ = self.hook.before(self.layer, (x,), {}) if self.hook is not None else ((x,), {})
        output = functional_call(self.layer, {"weight": weight}, (x,))
        return _after(self.hook, self.layer, output)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, unpacked for the call"


class Popcount(nn.Module):
    """What layers that compute with words share: bits, scales, and the hook of the layer's signs.

    Args:
        layer: what it does; copied without its weight.
        bits: of the weights, (filters, bytes).
        scales: (filters,) of what stands for +1.
        hook: of the signs.
    """

    words: Tensor
    scales: Tensor

    def __init__(self, layer: nn.Module, bits: Bits, scales: Tensor, hook: InputHook) -> None:
        super().__init__()
        self.layer, self.hook = _without_weight(layer), hook
        self.register_buffer("words", torch.from_numpy(in_words(bits)))
        self.register_buffer("scales", _once(scales))

    def dots(self, rows: Bits, terms: int) -> Tensor:
        """Return the dot products of rows of signs with every filter's: (rows, filters), integers in float32."""
        found = differing(in_words(rows), self.words.numpy())
        return torch.from_numpy(found).to(torch.float32).mul_(-2).add_(terms)

    def finished(self, x: Tensor, dots: Tensor) -> Tensor:
        """Return the output for dot products (batch, filters, ...): scaled, with the bias, and K where it is asked."""
        shape = [-1, *[1] * (dots.dim() - 2)]
        output = dots * self.scales.view(shape)
        bias: Tensor | None = self.layer.bias  # type: ignore[assignment]
        if bias is not None:
            output += bias.view(shape)
        return output

    def extra_repr(self) -> str:
        return "bits=1, XNOR and popcount"


class PopcountLinear(Popcount):
    """A linear layer of signs."""

    def __init__(self, layer: nn.Linear, made: FewValues, scales: Tensor, hook: InputHook) -> None:
        super().__init__(layer, np.packbits(_positive(made), axis=1), scales, hook)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        signs = _signs(self.hook, self.layer, x)
        rows = np.packbits((signs >= 0).reshape(-1, x.shape[-1]).numpy(), axis=1)
        output = self.finished(x, self.dots(rows, x.shape[-1])).view(*x.shape[:-1], -1)
        return _after(self.hook, self.layer, output)


class PopcountConv2d(Popcount):
    """A convolution of signs, as a matrix of patches: bits of the channels are packed first, then gathered."""

    layer: nn.Conv2d

    def __init__(self, layer: nn.Conv2d, made: FewValues, scales: Tensor, hook: InputHook) -> None:
        filters, channels, *_ = layer.weight.shape
        positive = _positive(made).reshape(filters, channels, -1).transpose(0, 2, 1)
        super().__init__(layer, np.packbits(positive, axis=2).reshape(filters, -1), scales, hook)
        self._border: tuple[tuple[int, int], Tensor] | None = None

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map images (batch, channels, height, width)."""
        signs = _signs(self.hook, self.layer, x)
        rows, (high, wide) = self.patches(np.packbits((signs >= 0).permute(0, 2, 3, 1).contiguous().numpy(), axis=3))
        terms = self.layer.in_channels * math.prod(self.layer.kernel_size)
        dots = self.dots(rows, terms).view(len(x), high, wide, -1).permute(0, 3, 1, 2).contiguous()
        output = self.finished(x, dots + self.border(x.shape[2], x.shape[3]))
        return _after(self.hook, self.layer, output)

    def patches(self, image: Bits) -> tuple[Bits, tuple[int, int]]:
        """Return a row of bytes for every place of the output, and how many places there are in both directions."""
        layer = self.layer
        (kernel_high, kernel_wide), (step_high, step_wide) = layer.kernel_size, layer.stride
        (far_high, far_wide), (up, left) = layer.dilation, (int(one) for one in layer.padding)
        image = np.pad(image, ((0, 0), (up, up), (left, left), (0, 0)))
        reach = far_high * (kernel_high - 1) + 1, far_wide * (kernel_wide - 1) + 1
        windows = np.lib.stride_tricks.sliding_window_view(image, reach, axis=(1, 2))
        windows = windows[:, ::step_high, ::step_wide, :, ::far_high, ::far_wide].transpose(0, 1, 2, 4, 5, 3)
        batch, high, wide = windows.shape[:3]
        return windows.reshape(batch * high * wide, -1), (high, wide)

    def border(self, height: int, width: int) -> Tensor:
        """Return what padding is worth: its bits stand for -1, and zeros were meant. Kept for the last size."""
        if self._border is None or self._border[0] != (height, width):
            layer, ones, taps = self.layer, torch.ones(1, 1, height, width), self.taps()
            inside = functional.conv2d(ones, taps, None, layer.stride, layer.padding, layer.dilation)
            self._border = (height, width), taps.sum((1, 2, 3)).view(1, -1, 1, 1) - inside
        return self._border[1]

    def taps(self) -> Tensor:
        """Return the sum of the signs at each place of the kernel, (filters, 1, height, width)."""
        high, wide = self.layer.kernel_size
        channels, used = self.layer.in_channels, -(-self.layer.in_channels // 8) * high * wide
        bits = self.words.numpy()[:, :used].reshape(len(self.words), high, wide, -1)
        sums = np.unpackbits(bits, axis=3, count=channels).sum(3, dtype=np.int32) * 2 - channels
        return torch.from_numpy(sums).to(torch.float32)[:, None]


def _once(values: Tensor) -> Tensor:
    """Return values a filter, one row where all filters have the same."""
    return values[:1].clone() if bool((values == values[:1]).all()) else values.clone()


def _positive(made: FewValues) -> np.ndarray:
    """Return where weights are above zero; a filter of one value has one symbol."""
    return (made.values.gather(1, made.symbols.long()) > 0).numpy()


def _signs(hook: InputHook, layer: nn.Module, x: Tensor) -> Tensor:
    """Return what the signs are of, and let the hook look at it where it makes K."""
    assert isinstance(hook.made, Sign)
    return hook.before(layer, (x,), {})[0][0] if hook.made.scaled else x


def _after(hook: InputHook | None, layer: nn.Module, output: Tensor) -> Tensor:
    scaled = None if hook is None else hook.after(layer, (), output)
    return output if scaled is None else scaled


def _without_weight(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer whose weight has a shape and no numbers."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    memo = {id(weight): nn.Parameter(weight.detach().to("meta"), requires_grad=False)}
    return set_aside_(copy.deepcopy(layer, memo)).eval()
