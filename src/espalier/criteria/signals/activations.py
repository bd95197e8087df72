"""Activations: sums over batches of what each group's readers see.

    forward ──▶ tap ──read──▶ a few numbers a unit and reading ──take──▶ sums ──ranks──▶ {group: [sums a reading]}

A reading sees its group after norms and non-linearities. Groups that no tap can see have no sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...core import ModelError
from ...graph import ranks
from ...graph.probes.outputs import logits
from ...graph.probes.taps import taps
from .passes import STOPPED, Batches, Seen, each_batch, untouched
from .slices import slot_parameters, widened

if TYPE_CHECKING:
    from ...graph import Graph

Read = Callable[[Tensor], Tensor]
Take = Callable[[list[Tensor], Seen], list[Tensor]]
Use = Callable[[str, list[Tensor], Seen], None]
Sums = dict[str, list[Tensor]]


def activation_sums(
    model: nn.Module,
    graph: Graph,
    batches: Batches,
    read: Read,
    take: Take = lambda readings, seen: readings,
) -> Sums:
    """Return ``{group: [sums over batches]}``, over all ranks, of groups whose readers were seen.

    Args:
        read: makes of an activation (samples, units, rest), at least float32, what outlasts the forward.
        take: makes of a group's readings in a batch, in the order of the forward, the numbers that are added up;
            nothing where they say nothing.

    Raises:
        ModelError: as ``each_batch``, or a model that is not the one that was traced.
    """
    slot_parameters(model, graph)
    found = ranks.together(partial(_own_sums, model, graph, batches, read, take), otherwise=STOPPED)
    return totals(found)


def totals(own: Sums) -> Sums:
    """Return the sums over all ranks."""
    names = sorted(own)
    summed = iter(ranks.total([one for name in names for one in own[name]]))
    return {name: [one for _, one in zip(own[name], summed, strict=False) if one is not None] for name in names}


def observe(model: nn.Module, graph: Graph, batches: Batches, read: Read, use: Use) -> None:
    """Run the model on every batch of this rank, and hand on what each group's readers saw.

    Args:
        read: as in ``activation_sums``.
        use: is given a group's name, its readings in the order of the forward, and the batch.

    Raises:
        ModelError: as ``each_batch``.
    """
    with untouched(model), torch.no_grad(), taps(model, graph, read=lambda x: read(widened(x))) as found:
        for seen in each_batch(model, batches):
            for name, tap in found.items():
                if not tap.missed and tap.readings:
                    use(name, tap.readings, seen)


def _own_sums(model: nn.Module, graph: Graph, batches: Batches, read: Read, take: Take) -> Sums:
    sums: Sums = {}
    observe(model, graph, batches, read, lambda name, readings, seen: add(sums, name, take(readings, seen)))
    return sums


def add(sums: Sums, name: str, new: list[Tensor]) -> None:
    """Add a batch's numbers to a group's sums, reading by reading."""
    own = sums.setdefault(name, [])
    for place, one in enumerate(new):
        if place < len(own):
            own[place] = own[place] + one
        else:
            own.append(one)


def by_sample(reading: Tensor, samples: int, pool: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Return (samples, units) of a reading (rows, units) whose rows are samples, or parts of them; else None."""
    if len(reading) % samples:
        return None
    return pool(reading.reshape(samples, -1, reading.shape[1]))


def labels(seen: Seen) -> tuple[Tensor, int]:
    """Return the class of each sample and the number of classes; of soft targets the likeliest.

    Raises:
        ModelError: there is not one class a sample.
    """
    given = seen.targets
    width = logits(seen.outputs).shape
    if isinstance(given, Tensor) and given.is_floating_point() and given.dim() == 2:
        given = given.argmax(1)
    if not isinstance(given, Tensor) or given.dim() != 1 or given.is_floating_point() or len(given) != seen.samples:
        raise ModelError(
            f"batch {seen.number}: this criterion needs one class label a sample, as integers of shape (samples,)"
        )
    if len(width) != 2 or int(given.min()) < 0 or int(given.max()) >= width[1]:
        raise ModelError(f"batch {seen.number}: labels must be columns of the model's outputs, shaped {tuple(width)}")
    return given, width[1]
