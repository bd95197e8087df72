"""A model that carries grids, written with exactly these: what the runtime computes is what PyTorch simulated.

    weight on its grid, simulated input        int8 weight ──▶ dequantize ──┐
              layer                    ──▶     quantize ──▶ dequantize ──▶ layer

Scales and zero points are the model's own, so nothing is calibrated; the runtime turns a layer between dequantized
inputs and weights into its integer kernel, where it has one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...graph.grids import Grid, WeightGrid, grids_of, unquantize_
from ...graph.input_hooks import put_
from ..protocol import ExportError

_BITS = 8


class _Layer(nn.Module):
    """A convolution or linear layer with its weight in int8, and its input in uint8 or int8 where that has a grid."""

    def __init__(self, layer: Any, weight: WeightGrid, given: Grid | None) -> None:
        super().__init__()
        # no child of this one: its weight in float32 is not to be written
        self.forwards: Any = F.linear if isinstance(layer, nn.Linear) else layer._conv_forward
        channels = len(layer.weight)
        self.register_buffer("integers", weight.integers(layer.weight).to(torch.int8))
        self.register_buffer("steps", weight.step.detach().expand(channels).clone())
        self.register_buffer("zeros", torch.zeros(channels, dtype=torch.int8))
        self.bias = layer.bias
        self.given = given

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer between explicit changes to integers and back."""
        ops = torch.ops.quantized_decomposed
        if self.given is not None:
            grid, dtype = self.given, torch.int8 if self.given.signed else torch.uint8
            ends = (grid.step, grid.zero_point, grid.lowest, grid.highest, dtype)
            x = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *ends), *ends)
        weight = ops.dequantize_per_channel(self.integers, self.steps, self.zeros, 0, -128, 127, torch.int8)
        return self.forwards(x, weight, self.bias)


def carries_grids(model: nn.Module) -> bool:
    """Whether a model has weights on grids of its own."""
    return bool(grids_of(model).weights)


def explicit(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose layers on grids of at most eight bits are written as integers.

    Layers with finer grids, and inputs that are quantized in another way (signs, or anew in each call), stay simulated.

    Raises:
        ExportError: no layer can be written so.
    """
    import torch.ao.quantization.fx._decomposed  # noqa: F401  has PyTorch know the operators

    grids = grids_of(model)
    ready = unquantize_(copy.deepcopy(model).eval())
    written = 0
    for name, module in list(ready.named_modules()):
        weight, given = grids.weights.get(f"{name}.weight"), grids.inputs.get(name)
        if _fits(module, weight, given):
            assert weight is not None and (given is None or isinstance(given, Grid))
            parent, _, last = name.rpartition(".")
            setattr(ready.get_submodule(parent), last, _Layer(module, weight, given))
            written += 1
        elif given is not None:
            put_(module, given)
    if not written:
        raise ExportError(
            "the network carries grids, and none of its layers has a weight of at most eight bits with one step a "
            "channel of its outputs and an input of eight bits: there is nothing to write in int8"
        )
    return ready


def _fits(module: nn.Module, weight: WeightGrid | None, given: Any) -> bool:
    """Whether a layer can be written in int8 with the grids that it has."""
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) or weight is None:
        return False
    whole = given is None or isinstance(given, Grid) and given.bits == _BITS  # runtimes clamp at the type's ends
    return whole and weight.bits <= _BITS and weight.axis == 0 and weight.step.dtype == torch.float32
