"""AdaRound: whether a weight is rounded up or down is learned, so that its layer's output stays what it was.

    min over V   | W x - W~ x^ |^2  +  lambda sum (1 - |2 h(V) - 1|^beta),     h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)
    W~ = s clip(floor(W / s) + h(V), lowest, highest),   beta falls from 20 to 2

Layer by layer: x is what the network gives the layer, x^ what it gives when the layers before are quantized.

*Source*: Nagel et al., Up or Down?, ICML 2020, arXiv:2004.10568, section 3.2, equations 21 to 25.
*Differs*: (1) fewer and larger steps by default: 10,000 a layer in the paper, and lambda is 0.01 there; (2) the
activation function after the layer is not part of what is kept; (3) layers whose outputs are not seen, or that run
several times, are rounded to the nearest.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.grids import Grids, WeightGrid, put_grids_
from ..graph.recording.capture import run_model
from ..graph.recording.running import on_device
from .bias_correction import together
from .layers import Layer

_LOW, _HIGH = -0.1, 1.1
_WARM, _BETA = 0.2, (20.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class AdaRound:
    """Settings.

    Attributes:
        steps: of Adam, for each layer.
        lr: of Adam.
        weight: lambda, of the term that drives h to 0 or 1.
        batch: samples a step.
        seed: which samples.
    """

    steps: int = 500
    lr: float = 0.05
    weight: float = 0.1
    batch: int = 32
    seed: int = 0


def adaround(
    dense: nn.Module, layers: Sequence[Layer], grids: Grids, batches: Sequence[Any], settings: AdaRound
) -> dict[str, Tensor]:
    """Return ``{tensor: numbers on its grid}``.

    Args:
        dense: the network, without grids.
        layers: to round.
        grids: of their weights and inputs.
        batches: of inputs; as many as memory should hold are taken.
        settings: how long to learn.
    """
    inputs, work = together(batches), copy.deepcopy(dense)
    found: dict[str, Tensor] = {}
    for name, grid in grids.weights.items():
        tensor = dense.get_parameter(name).detach()
        found[name] = grid.value(grid.integers(tensor), tensor.dtype)
    order = _called_once(dense, layers, inputs)
    for layer in order:
        grid = grids.weights[layer.weight]
        given, wanted = _around(work, layer, inputs)[0], _around(dense, layer, inputs)[1]
        own = grids.inputs.get(layer.path)
        given = given if own is None else own.of(given)
        found[layer.weight] = _rounded(dense, layer, grid, (given, wanted), settings)
        with torch.no_grad():
            work.get_parameter(layer.weight).copy_(found[layer.weight])
        if own is not None:
            done = order[: order.index(layer) + 1]
            put_grids_(work, Grids({one.path: grids.inputs[one.path] for one in done if one.path in grids.inputs}))
    return found


def _rounded(
    dense: nn.Module, layer: Layer, grid: WeightGrid, pair: tuple[Tensor, Tensor], settings: AdaRound
) -> Tensor:
    """Return a layer's weight, each number rounded the way that was learned."""
    module, (given, wanted) = copy.deepcopy(dense.get_submodule(layer.path)).requires_grad_(False), pair
    weight = dense.get_parameter(layer.weight).detach()
    step = grid.over(weight.dim()).to(weight.device)
    below = (weight / step).floor()
    share = ((weight / step - below - _LOW) / (_HIGH - _LOW)).clamp(1e-4, 1 - 1e-4)
    v = torch.logit(share).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=settings.lr)
    generator = torch.Generator().manual_seed(settings.seed)
    for number in range(settings.steps):
        rows = torch.randint(len(given), (min(settings.batch, len(given)),), generator=generator)
        soft = (below + up(v)).clamp(grid.lowest, grid.highest) * step
        made = torch.func.functional_call(module, {"weight": soft}, (given[rows],))
        error = (made - wanted[rows]).square().mean() * weight.shape[layer.axis]
        loss = error + _regulariser(v, number / settings.steps, settings.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    integers = (below + (up(v) >= 0.5)).clamp(grid.lowest, grid.highest).int()
    return grid.value(integers, weight.dtype)


def up(v: Tensor) -> Tensor:
    """Return h(V), how far a weight is rounded up: the rectified sigmoid."""
    return (torch.sigmoid(v) * (_HIGH - _LOW) + _LOW).clamp(0, 1)


def _regulariser(v: Tensor, share: float, weight: float) -> Tensor | float:
    if share < _WARM:
        return 0.0
    begin, end = _BETA
    beta = end + (begin - end) * (1 - (share - _WARM) / (1 - _WARM))
    return weight * (1 - (2 * up(v) - 1).abs().pow(beta)).sum()


@torch.no_grad()
def _around(model: nn.Module, layer: Layer, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return what a layer is given and what it makes of it, in a network that runs."""
    found: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        found.append(((args[0] if args else next(iter(kwargs.values()))).clone(), output.clone()))

    handle = model.get_submodule(layer.path).register_forward_hook(note, with_kwargs=True)
    try:
        run_model(model, on_device(inputs, model), None)
    finally:
        handle.remove()
    return found[0]


@torch.no_grad()
def _called_once(model: nn.Module, layers: Sequence[Layer], inputs: Any) -> list[Layer]:
    """Return the layers that run once, in the order in which they do, each weight once."""
    ran: list[Layer] = []
    handles = [
        model.get_submodule(one.path).register_forward_hook(lambda *_, one=one: ran.append(one))
        for one in layers
        if one.out_axis is not None
    ]
    try:
        run_model(model, on_device(inputs, model), None)
    finally:
        for handle in handles:
            handle.remove()
    users = [one.weight for one in layers]
    return [one for one in ran if ran.count(one) == users.count(one.weight) == 1]
