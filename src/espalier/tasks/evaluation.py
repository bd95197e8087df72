"""One pass over the data for any number of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.recording.running import device_of, evaluating
from .metrics import Accuracy, Metrics

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
    with evaluating(*models.values()):
        for inputs, targets in batches:
            seen(targets)
            for name, model in models.items():
                device = device_of(model)
                found = metrics.count(model(inputs.to(device)), targets.to(device)).cpu()
                totals[name] = found + totals[name] if name in totals else found
    return totals


def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of examples in [0, 1] whose class the model gets right, in eval mode.

    The model's training mode is what it was before.
    """
    counts = count({"model": model}, batches, Accuracy())
    return Accuracy().values(counts["model"])["accuracy"] if counts else 0.0
