"""Where MACs and milliseconds go: a row a layer, before and after."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.run import Layer

_ROUNDS = 5


def layer_costs(before: nn.Module, after: nn.Module, example: Tensor) -> list[Layer]:
    """Return the layers that hold parameters, in the order of the modules; eager, on the example (batch 1)."""
    (old, old_ms), (new, new_ms) = (_measured(model, example) for model in (before, after))
    return [
        Layer(
            name=name,
            macs_before=old[name] // len(example),
            macs_after=new.get(name, 0) // len(example),
            ms_before=old_ms[name],
            ms_after=new_ms.get(name),
        )
        for name in old_ms
    ]


def _measured(model: nn.Module, example: Tensor) -> tuple[dict[str, int], dict[str, float]]:
    """Return {layer: MACs} and {layer: milliseconds} of the layers that ran."""
    own = copy.deepcopy(model).eval()
    layers = {
        name: module
        for name, module in own.named_modules()
        if name and not any(module.children()) and any(True for _ in module.parameters(recurse=False))
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        own(example)
    counts = counter.get_flop_counts()
    root = type(own).__name__
    macs = {name: sum(counts.get(f"{root}.{name}", {}).values()) // 2 for name in layers}
    return macs, _timed(own, layers, example)


@torch.no_grad()
def _timed(model: nn.Module, layers: dict[str, nn.Module], example: Tensor) -> dict[str, float]:
    rounds: dict[str, list[float]] = {}
    for turn in range(_ROUNDS + 1):
        with _watched(layers) as seconds:
            model(example)
        for name, value in seconds.items() if turn else ():  # the first round warms up
            rounds.setdefault(name, []).append(1e3 * value)
    return {name: statistics.median(values) for name, values in rounds.items()}


@contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[dict[str, float]]:
    """Yield {layer: seconds} that each forward inside the context adds to."""
    seconds: dict[str, float] = {}
    started: dict[str, float] = {}

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def before(name: str) -> None:
        started[name] = now()

    def after(name: str) -> None:
        seconds[name] = seconds.get(name, 0.0) + now() - started[name]

    handles = []
    for name, module in layers.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: before(name)))
        handles.append(module.register_forward_hook(lambda *_, name=name: after(name)))
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()
