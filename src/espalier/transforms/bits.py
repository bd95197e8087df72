"""Bits a layer: which ones keep the network's output nearest to what it was, for a size or a number of operations.

    minimise  sum over layers of D(layer, bits)    so that    sum of cost(layer, bits) <= limit

D is measured: the noise in the network's outputs, on training batches, with that layer alone quantized. Noises of
layers add up where they are small and independent, which makes it a knapsack with one choice a layer; it is solved
exactly by dynamic programming, on costs rounded up to a 4096th of the limit.

*Source*: the additive model of Zhou et al., Adaptive Quantization for Deep Neural Network, AAAI 2018, arXiv:1712.01048,
section 3; dynamic programming in the place of its closed form.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core import BudgetError
from ..graph.grids import Grids, Input, put_grids_, quantize_inputs_
from ..graph.recording.capture import run_model
from ..graph.recording.running import on_device
from .layers import Layer
from .noise import network_power
from .quantization import Prepared, Quantization, grids_for, inputs_of, nearest, prepare

_PARTS = 4096
_FULL = 32  # bits of a number that is not quantized
_LOOKED_AT = 2  # batches: the network runs on them once for each layer and number of bits


@dataclass(frozen=True)
class Limit:
    """What the quantized network may cost; one of these.

    Attributes:
        size_bytes: of all parameters, those on grids packed in their bits, with their steps.
        size_ratio: that, as a share of the parameters' bytes as they are.
        bit_operations_ratio: MACs x weight bits x input bits, as a share of 32 x 32.
    """

    size_bytes: int | None = None
    size_ratio: float | None = None
    bit_operations_ratio: float | None = None


def chosen_bits(
    model: nn.Module, data: Any, how: Quantization, limit: Limit, *, choices: Collection[int] = (2, 3, 4, 5, 6, 8)
) -> Quantization:
    """Return how to quantize within a limit: ``how`` with the bits of every layer.

    Args:
        model: any trained network; it is untouched.
        data: as for ``quantize``.
        how: everything but the bits.
        limit: what the result may cost.
        choices: bits to choose from.

    Raises:
        BudgetError: the fewest bits cost more; the message says how much.
    """
    ready = prepare(model, inputs_of(data, min(how.batches, _LOOKED_AT)), how)
    most = sensitivities(ready, how, sorted(set(choices)))
    weights = list(dict.fromkeys(layer.weight for layer in ready.layers))
    costs, room = _costs(ready, weights, sorted(set(choices)), limit)
    picked = knapsack([[most[name][b] for b in sorted(set(choices))] for name in weights], costs, room)
    bits = {name: sorted(set(choices))[k] for name, k in zip(weights, picked, strict=True)}
    return replace(how, bits=bits)


def sensitivities(ready: Prepared, how: Quantization, choices: Sequence[int]) -> dict[str, dict[int, float]]:
    """Return ``{tensor: {bits: noise power in the network's outputs with its layers alone quantized}}``."""
    work = copy.deepcopy(ready.dense)
    found: dict[str, dict[int, float]] = {}
    for bits in choices:
        grids = grids_for(
            ready, replace(how, weight_bits=bits, input_bits=None if how.input_bits is None else bits, bits={})
        )
        values = nearest(ready, grids)
        for name in grids.weights:
            own = {
                one.path: grids.inputs[one.path]
                for one in ready.layers
                if one.weight == name and one.path in grids.inputs
            }
            found.setdefault(name, {})[bits] = _noise(work, ready, name, values[name], own)
    return found


def knapsack(values: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], room: float) -> list[int]:
    """Return one choice a row: the sum of values is least, and that of costs no more than ``room``.

    Args:
        values: of each row's choices.
        costs: likewise; each counts as the next larger 4096th of ``room``.
        room: above zero.

    Raises:
        BudgetError: the cheapest choices cost more.
    """
    cheapest = sum(min(row) for row in costs)
    if cheapest > room:
        raise BudgetError(f"the fewest bits cost {cheapest:.4g}, and the limit leaves {room:.4g} for them")
    parts = [[math.ceil(cost / room * _PARTS - 1e-9) for cost in row] for row in costs]
    if sum(min(row) for row in parts) > _PARTS:  # rounding alone is too much: the cheapest it is
        return [row.index(min(row)) for row in costs]
    best = np.full(_PARTS + 1, 0.0)
    picks = []
    for row, own in zip(values, parts, strict=True):
        table = np.full((len(row), _PARTS + 1), np.inf)
        for k, (value, cost) in enumerate(zip(row, own, strict=True)):
            if cost <= _PARTS:
                table[k, cost:] = best[: _PARTS + 1 - cost] + value
        picks.append(table.argmin(0))
        best = table.min(0)
    place, picked = _PARTS, []
    for pick, own in zip(reversed(picks), reversed(parts), strict=True):
        picked.append(int(pick[place]))
        place -= own[picked[-1]]
    return picked[::-1]


@torch.no_grad()
def _noise(work: nn.Module, ready: Prepared, name: str, value: Tensor, inputs: Mapping[str, Input]) -> float:
    tensor = work.get_parameter(name)
    before = tensor.clone()
    tensor.copy_(value)
    quantize_inputs_(work, inputs)
    noise = network_power(ready.outputs, work, ready.batches).noise
    put_grids_(work, Grids())
    tensor.copy_(before)
    return noise


def _costs(
    ready: Prepared, weights: Sequence[str], choices: Sequence[int], limit: Limit
) -> tuple[list[list[float]], float]:
    """Return what each weight costs at each number of bits, and what all may cost."""
    tensors = {name: ready.dense.get_parameter(name) for name in weights}
    if limit.bit_operations_ratio is not None:
        macs = macs_of(ready.dense, ready.layers, ready.batches[0])
        own = [sum(macs.get(one.path, 0) for one in ready.layers if one.weight == name) for name in weights]
        whole = sum(own) * _FULL * _FULL
        seen = {one.weight for one in ready.layers if one.path in ready.samples}
        rows = [
            [float(mac * b * (b if name in seen else _FULL)) for b in choices]
            for name, mac in zip(weights, own, strict=True)
        ]
        return rows, limit.bit_operations_ratio * whole
    axes = {one.weight: one.axis for one in ready.layers}
    total = sum(one.numel() * one.element_size() for one in ready.dense.parameters())
    quantized = sum(one.numel() * one.element_size() for one in tensors.values())
    room = limit.size_bytes if limit.size_bytes is not None else (limit.size_ratio or 1.0) * total
    rows = [
        [float(-(-t.numel() * b // 8) + t.shape[axes[name]] * t.element_size()) for b in choices]
        for name, t in tensors.items()
    ]
    left = room - (total - quantized)
    if left <= 0:
        raise BudgetError(f"what is not quantized takes {total - quantized:,} bytes, and the limit is {room:,.0f}")
    return rows, left


@torch.no_grad()
def macs_of(model: nn.Module, layers: Sequence[Layer], inputs: Any) -> dict[str, int]:
    """Return ``{layer: multiplications and additions of a sample}`` of layers that ran."""
    found: dict[str, int] = {}

    def count(layer: Layer, output: Any) -> None:
        weight, channels = model.get_parameter(layer.weight), output.shape[layer.out_axis or 0]
        found[layer.path] = found.get(layer.path, 0) + output.numel() // len(output) // channels * weight.numel()

    handles = [
        model.get_submodule(one.path).register_forward_hook(lambda module, args, output, one=one: count(one, output))
        for one in layers
        if one.out_axis is not None
    ]
    try:
        run_model(model, on_device(inputs, model), None)
    finally:
        for handle in handles:
            handle.remove()
    return found
