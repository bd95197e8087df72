"""Recovery by the names that recipes use."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils._pytree import tree_leaves

from ..core import ModelError, Plan
from ..graph import Graph, trace
from ..graph.masks import masks_of
from ..graph.recording.skeleton import map_tensors
from ..graph.sharing import sharing_of
from ..recovery import least_squares, reestimate_batch_norm, rescale_statistics

if TYPE_CHECKING:
    from ..tasks import Task

_HELD_BYTES = 2**31  # what the fits may hold of activations
_FLOAT_BYTES = 4
_FITS = {"least_squares": least_squares, "statistics": rescale_statistics}


def mended(
    how: Iterable[str], networks: tuple[nn.Module, nn.Module], plan: Plan, task: Task, *, batches: int
) -> list[str]:
    """Mend the smaller of two networks in place, by each of ``how`` in turn; return what a user should know.

    Args:
        how: of ``steps.recover.Recovery``.
        networks: the one before ``plan`` and the one after it.
        plan: which units were kept.
        task: its training split gives the batches.
        batches: how many.
    """
    dense, small = networks
    notes: list[str] = []
    for name in how:
        data = first_batches(task, batches)
        try:
            if name == "batch_norm":
                reestimate_batch_norm(small, data)
            else:
                graph = trace(dense, task.example())
                if held(graph) < _count(data):
                    data = thinned(data, held(graph))
                    notes.append(f"recovery by {name} read {_count(data)} examples: more would not fit in 2 GB")
                _FITS[name](dense, small, graph, plan, data)
                if name == "least_squares" and masks_of(small):
                    notes.append("recovery by least_squares left masked layers as they are: it would fill their zeros")
                if name == "least_squares" and sharing_of(small):
                    notes.append("recovery by least_squares left clustered layers as they are: it would part them")
        except ModelError as error:  # the network is as it was then, and training mends what this cannot
            notes.append(f"recovery by {name} was left out: {error}")
    return notes


def held(graph: Graph) -> int:
    """Return how many examples two networks may hold the activations of, at their peak, in 2 GB; two at least."""
    return max(2, int(_HELD_BYTES / (2 * _FLOAT_BYTES * max(graph.cost().activations, 1))))


def thinned(data: list[tuple[Any, Any]], most: int) -> list[tuple[Any, Any]]:
    """Return the first examples of as many batches as leave one example each, so that ``most`` are left at most."""
    few = data[: max(2, most)]
    each = max(1, most // len(few))

    def first(item: Any) -> Any:
        return map_tensors(item, lambda tensor: tensor[:each])

    return [(first(inputs), first(targets)) for inputs, targets in few]


def _count(data: list[tuple[Any, Any]]) -> int:
    return sum(max((len(tensor) for tensor in tree_leaves(inputs)), default=0) for inputs, _ in data)


def first_batches(task: Task, count: int) -> list[tuple[Any, Any]]:
    """Return the first training batches of epoch 0, the same ones every time."""
    epoch, task.train.epoch = task.train.epoch, 0
    try:
        return list(itertools.islice(task.train, count))
    finally:
        task.train.epoch = epoch
