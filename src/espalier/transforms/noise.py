"""Noise: what quantization adds to a layer's output, and to the network's, against what was there.

    SQNR = 10 log10 (sum y^2 / sum (y_q - y)^2)  dB

Of a layer: with its own weights and inputs quantized, and everything before it as it was. Of the network: with all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.grids import Input
from ..graph.recording.capture import run_model
from ..graph.recording.record import tensors_in
from ..graph.recording.running import on_device
from .layers import Layer

_LARGEST_DB = 200.0  # of no noise at all: JSON has no infinity


class Power:
    """Sums of squares of a signal and of the noise in it."""

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, clean: Tensor, noisy: Tensor) -> None:
        """Take note of numbers, and of what became of them."""
        self.signal += float(clean.detach().double().square().sum())
        self.noise += float((noisy.detach().double() - clean.detach().double()).square().sum())

    @property
    def db(self) -> float:
        """The ratio in decibels, at most 200 and at least -200; NaN counts as the least."""
        if self.noise == 0:
            return _LARGEST_DB
        ratio = self.signal / self.noise if math.isfinite(self.noise) and self.signal > 0 else 0.0
        return 10 * math.log10(min(max(ratio, 1e-20), 1e20))


@torch.no_grad()
def outputs_of(model: nn.Module, batches: Sequence[Any]) -> list[list[Tensor]]:
    """Return the floating-point outputs of a model for each batch of inputs."""
    return [floats(run_model(model, on_device(inputs, model), None)) for inputs in batches]


def floats(output: Any) -> list[Tensor]:
    """Return the floating-point tensors among what a network returns."""
    return [one for one in tensors_in(output) if one.is_floating_point()]


def network_power(clean: Sequence[Sequence[Tensor]], model: nn.Module, batches: Sequence[Any]) -> Power:
    """Return the noise in a network's outputs.

    Args:
        clean: what they should be, as ``outputs_of`` returned it.
        model: quantized.
        batches: the same inputs.
    """
    power = Power()
    for wanted, inputs in zip(clean, batches, strict=True):
        for a, b in zip(wanted, outputs_of(model, [inputs])[0], strict=True):
            power.add(a, b)
    return power


@torch.no_grad()
def layer_powers(
    dense: nn.Module, layers: Sequence[Layer], weights: Mapping[str, Tensor], inputs: Mapping[str, Input], batches: Any
) -> dict[str, Power]:
    """Return ``{layer: noise in its output}``; in its weights where the output was not seen.

    Args:
        dense: the network before quantization, without hooks of grids.
        layers: to look at.
        weights: ``{tensor: its quantized values}``.
        inputs: ``{layer: what its input is quantized to}``.
        batches: of inputs.
    """
    powers = {layer.path: Power() for layer in layers}
    seen: set[str] = set()

    def hook(layer: Layer, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen.add(layer.path)
        made = inputs.get(layer.path)
        if made is not None and args:
            args = (made.of(args[0]), *args[1:])
        elif made is not None:
            kwargs = {name: made.of(one) if i == 0 else one for i, (name, one) in enumerate(kwargs.items())}
        with _in_place_of(module, layer, weights[layer.weight]):
            powers[layer.path].add(output, module.forward(*args, **kwargs))

    handles = [
        dense.get_submodule(layer.path).register_forward_hook(
            lambda module, args, kwargs, output, layer=layer: hook(layer, module, args, kwargs, output),
            with_kwargs=True,
        )
        for layer in layers
        if layer.out_axis is not None
    ]
    try:
        for batch in batches:
            run_model(dense, on_device(batch, dense), None)
    finally:
        for handle in handles:
            handle.remove()
    for layer in layers:
        if layer.path not in seen:
            powers[layer.path].add(dense.get_parameter(layer.weight), weights[layer.weight])
    return powers


@contextmanager
def _in_place_of(module: nn.Module, layer: Layer, weight: Tensor) -> Iterator[None]:
    own = module.get_parameter("weight")
    before = own.data
    own.data = weight
    try:
        yield
    finally:
        own.data = before
