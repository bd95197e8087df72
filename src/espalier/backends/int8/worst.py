"""Which layer int8 hurts most: each layer alone, with its weight and input rounded, against itself in float.

    SQNR_l = 10 log10( sum f_l(x, W)^2 / sum (f_l(x, W) - f_l(q(x), q(W)))^2 )  dB

with W in int8, symmetric, one step a channel, and x in uint8 between the least and the largest value that
calibration saw.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..protocol import call

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(eq=False)
class _Alone:
    """A layer's inputs and what rounding does to its outputs."""

    low: float = 0.0
    high: float = 0.0
    signal: float = 0.0
    noise: float = 0.0


def layers_sqnr(model: nn.Module, inputs: Sequence[Any], calibration: Sequence[Any] = ()) -> dict[str, float]:
    """Return the decibels of every convolution and linear layer alone, the worst first.

    Args:
        model: any network; it is untouched.
        inputs: of the network, that outputs are compared on.
        calibration: inputs that fix the ranges beforehand; each layer's own input does where there are none.
    """
    ready = copy.deepcopy(model).eval()
    layers = {name: module for name, module in ready.named_modules() if isinstance(module, _LAYERS)}
    found = {name: _Alone() for name in layers}
    _heard(ready, calibration, {layers[name]: partial(_widened, one) for name, one in found.items()})
    _heard(ready, inputs, {layers[name]: partial(_compared, one, bool(calibration)) for name, one in found.items()})
    decibels = {name: _decibels(one.signal, one.noise) for name, one in found.items() if one.signal > 0.0}
    return dict(sorted(decibels.items(), key=lambda item: item[1]))


def worst_words(model: nn.Module, inputs: Sequence[Any], calibration: Sequence[Any]) -> str:
    """Name the layer that loses most alone, in a sentence."""
    found = layers_sqnr(model, inputs, calibration)
    if not found:
        return "It has no convolution or linear layer."
    name, decibels = next(iter(found.items()))
    return f"Alone, {name!r} loses most: {decibels:.1f} dB."


def _heard(ready: nn.Module, inputs: Sequence[Any], hooks: Mapping[nn.Module, Callable[..., None]]) -> None:
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    with torch.no_grad():
        for one in inputs:
            call(ready, one)
    for handle in handles:
        handle.remove()


def _widened(alone: _Alone, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    alone.low, alone.high = min(alone.low, float(inputs[0].min())), max(alone.high, float(inputs[0].max()))


def _compared(alone: _Alone, static: bool, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if not static:
        alone.low = alone.high = 0.0
        _widened(alone, module, inputs, output)
    weight = module.weight
    module.weight = nn.Parameter(_rounded_weight(weight), requires_grad=False)
    rounded = module.forward(_rounded_input(inputs[0], alone.low, alone.high))
    module.weight = weight
    alone.signal += float(output.double().square().sum())
    alone.noise += float((output.double() - rounded.double()).square().sum())


def _rounded_weight(weight: Tensor) -> Tensor:
    steps = weight.abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    steps = steps.view(-1, *[1] * (weight.ndim - 1))
    return (weight / steps).round().clamp(-127, 127) * steps


def _rounded_input(given: Tensor, low: float, high: float) -> Tensor:
    step = max((high - low) / 255, torch.finfo(given.dtype).tiny)
    zero = round(-low / step)
    return ((given / step + zero).round().clamp(0, 255) - zero) * step


def _decibels(signal: float, noise: float) -> float:
    return 10.0 * math.log10(signal / noise) if noise > 0.0 else math.inf
