"""Means over batches of numbers that parameters' gradients give, slot by slot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .passes import Batches, Loss, each_loss, samples_of_all, untouched
from .pooling import Measured
from .slices import fold, slot_parameters

if TYPE_CHECKING:
    from ...graph import Graph

Measure = Callable[[Tensor, Mapping[str, Tensor]], dict[str, Tensor]]


def slot_means(
    model: nn.Module,
    graph: Graph,
    batches: Batches,
    loss: Loss,
    *,
    measure: Measure,
    each: Callable[[Tensor], Tensor] = lambda number: number,
    total: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, Measured]:
    """Return, for each slot, the mean over batches of ``total(sum over a unit's weights of each(number))``.

    Batches are weighed by their samples.

    Args:
        measure: makes of a batch's scalar loss and the parameters one number a weight.
        each: applied to the numbers.
        total: applied to a unit's sum.

    Raises:
        ModelError: as ``each_loss``, or another model.
    """
    tensors = slot_parameters(model, graph)
    sums: dict[str, Measured] = {}
    samples = 0
    with untouched(model, tensors) as parameters:
        for seen, value in each_loss(model, batches, loss):
            everyone = samples_of_all(seen)
            for name, pairs in fold(graph, measure(value, parameters), each).items():
                before = sums.get(name) or [(slot, 0.0) for slot, _ in pairs]
                sums[name] = [
                    (slot, old + total(new) * everyone) for (_, old), (slot, new) in zip(before, pairs, strict=True)
                ]
            samples += everyone
    return {name: [(slot, one / samples) for slot, one in pairs] for name, pairs in sums.items()}
