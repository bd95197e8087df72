"""Gate gradients: what the loss of each sample would gain or lose with each unit, summed over batches as one likes.

    G_r[n, u] = d loss_n / d gate_r[u] = sum over positions of  x_r[n, u, .] * d loss_n / d x_r[n, u, .]

r are the readers of a group: a unit is gone when none of them reads it, so its own gradient is the sum over r. No
gradient of a weight is computed. Where no tap can see the readers (recurrences, q k^T), a gate gives the gradient of
the whole batch, which then counts as one sample: as good as all of them where gradients of samples are independent and
average to nothing, as they are after training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core import ModelError
from ...graph import ranks
from ...graph.probes.gates import gates
from ...graph.probes.taps import Tap, taps
from .passes import Batches, Loss, each_loss, samples_of_all, untouched
from .slices import Scores, slot_parameters, widened

if TYPE_CHECKING:
    from ...graph import Graph

Take = Callable[[list[Tensor]], Tensor]


def mean_over_samples(
    model: nn.Module, graph: Graph, batches: Batches, loss: Loss, take: Take, *, summed: bool = False
) -> Scores:
    """Return ``{group: sum over batches of take(gradients) / samples}`` of groups whose gradient can be had.

    Args:
        take: makes of a group's gradients, one (samples, units) a reader, what is summed; (1, units) stands for a
            batch whose samples cannot be told apart.
        summed: ``loss`` is a sum over samples; otherwise their mean, over the samples of all ranks where it is
            weighed so.

    Raises:
        ModelError: as ``each_loss``, or a model that is not the one that was traced.
    """
    slot_parameters(model, graph)
    sums: dict[str, Tensor] = {}
    samples = 0
    seen_by_tap = tappable(model, graph)
    others = [name for name in graph.groups if name not in seen_by_tap and gateable(model, graph, name)]
    with (
        untouched(model),
        gates(model, graph, others) as gated,  # outside: taps must see the model's own weights
        taps(model, graph, seen_by_tap, gradients=True, read=_nothing) as tapped,
    ):
        for seen, value in each_loss(model, batches, loss):
            if value.requires_grad:
                value.backward()
            everyone = samples_of_all(seen)
            scale = 1.0 if summed else everyone / ranks.world()
            found = {name: by_reader(tap, seen.samples) for name, tap in tapped.items() if not tap.missed}
            found |= {name: [_whole(gate)] for name, gate in gated.items()}
            for name, parts in found.items():
                if parts:
                    new = take([widened(part) * scale for part in parts])
                    sums[name] = sums[name] + new if name in sums else new
            samples += everyone
    names = sorted(sums)
    totals = ranks.total([sums[name] for name in names])
    return {name: one / samples for name, one in zip(names, totals, strict=True) if one is not None}


def tappable(model: nn.Module, graph: Graph) -> list[str]:
    """Return the groups all of whose readers a tap can watch."""
    with taps(model, graph) as found:
        return list(found)


def gateable(model: nn.Module, graph: Graph, name: str) -> bool:
    """Whether a gate can silence a group."""
    try:
        with gates(model, graph, [name]):
            return True
    except ModelError:
        return False


def coupled(parts: list[Tensor]) -> Tensor:
    """Return a group's own gradient, (samples, units): the sum over its readers."""
    if len({len(part) for part in parts}) > 1:
        parts = [part.sum(0, keepdim=True) for part in parts]
    return torch.stack(parts).sum(0)


def by_reader(tap: Tap, samples: int) -> list[Tensor]:
    """Return (samples, units) of each reader; (1, units) where rows are no samples; zeros where nothing flows back."""
    parts = tap.gradients_by_reader()
    if not parts and tap.readings:
        return [torch.zeros(1, tap.units, device=tap.readings[0].device)]
    return [
        part.reshape(samples, -1, tap.units).sum(1) if len(part) % samples == 0 else part.sum(0, keepdim=True)
        for part in parts
    ]


def _whole(gate: nn.Parameter) -> Tensor:
    """Take a gate's gradient, (1, units), and leave it none."""
    gradient = torch.zeros_like(gate) if gate.grad is None else gate.grad.detach().clone()
    gate.grad = None
    return gradient[None]


def _nothing(x: Tensor) -> Tensor:
    return x.new_empty(0)
