"""One pass over the data for any number of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .metrics import Metrics

Seen = Callable[[Tensor], None]


@torch.no_grad()
def count(
    models: Mapping[str, nn.Module],
    batches: Iterable[tuple[Any, Tensor]],
    metrics: Metrics,
    *,
    seen: Seen = lambda targets: None,
) -> dict[str, Tensor]:
    """Return the sums of ``metrics`` over ``batches`` for every network, each in eval mode and on its own device.

    Networks come out in the modes, module by module, in which they came.

    Args:
        models: networks by name.
        batches: ``(inputs, targets)``; gone through once.
        metrics: what to count.
        seen: called with every batch's targets.
    """
    totals: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(evaluating(model))
        for inputs, targets in batches:
            seen(targets)
            for name, model in models.items():
                device = device_of(model)
                found = metrics.count(model(inputs.to(device)), targets.to(device)).cpu()
                totals[name] = found + totals[name] if name in totals else found
    return totals


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode, and back to its own mode after; a frozen batch norm stays frozen."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters are; the CPU when there are none."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
