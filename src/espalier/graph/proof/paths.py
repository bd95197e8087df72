"""Paths: the values that a proof checks at must lead the model's Python down the path that was recorded.

record on meta     nothing looked at values: any values that the dense model runs on will do
record of values   traced again at the checked ones; the masked dense model takes the cut model's path, because
                   setting what is removed to zero computes the same values
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...core import ModelError, Plan, ProofError
from ..graph import Graph
from ..recording.capture import run_model
from ..recording.chance import same_chance
from ..recording.looks import looks
from ..recording.record import Record, tensors_in
from ..recording.skeleton import map_tensors
from ..recording.tensors import named_tensors
from ..trace import trace
from .varying import varied


def at_checked_values(graph: Graph, plan: Plan, dense: nn.Module, example: Any) -> tuple[Any, Graph]:
    """Return an example with other whole numbers where these lead down the same path, and the graph traced there.

    Raises:
        ProofError: the path changes with the floating-point numbers already.
    """
    on_meta = graph.records[0].on_meta
    masked = dense if on_meta else _masked(graph, plan, dense)
    for other in varied(graph.records[0], example):
        if on_meta and _runs(dense, other, graph):
            return other, graph
        again = None if on_meta else _again(graph, masked, other)
        if again is not None and _same_path(graph, again):
            return other, again
    if on_meta:
        return example, graph
    try:
        again = trace(masked, example, graph.forward_fn)
    except ModelError as error:
        raise ProofError(f"the masked model does not run: {error}") from error
    if again.fingerprint != graph.fingerprint:
        raise ProofError(
            other_layers(graph, again) or "the model's groups change with its inputs' values; the cut cannot be proved"
        )
    return example, again


def other_layers(graph: Graph, again: Graph) -> str:
    """Say which layers ran in one of two passes alone; "" where the same ran."""
    ran, runs = (set().union(*(r.touched() for r in one.records)) for one in (graph, again))
    owners = sorted({name.rpartition(".")[0] or name for name in ran ^ runs})
    if not owners:
        return ""
    some = ", ".join(owners[:3]) + (f" and {len(owners) - 3} more" if len(owners) > 3 else "")
    return (
        f"the inputs' values decide which layers run: {some} ran with some values and not with others. Give a larger "
        "example, whose batch or tokens reach every branch and every expert"
    )


def trains_at_any_values(graph: Graph) -> bool:
    """Whether the train record holds at the values that the graph is compared at."""
    first, train = graph.records[:2]
    return train.on_meta or not first.on_meta or not looks([train])


def _masked(graph: Graph, plan: Plan, dense: nn.Module) -> nn.Module:
    masked = copy.deepcopy(dense)
    tensors = named_tensors(masked)
    for one in graph.surgery(plan).slices.values():
        gone = torch.ones(one.size, dtype=torch.bool)
        gone[list(one.keep)] = False
        with torch.no_grad():
            tensors[one.tensor].index_fill_(one.dim, gone.nonzero().flatten().to(tensors[one.tensor].device), 0)
    return masked


def _again(graph: Graph, masked: nn.Module, example: Any) -> Graph | None:
    try:
        return trace(masked, example, graph.forward_fn)
    except ModelError:
        return None


def _same_path(graph: Graph, again: Graph) -> bool:
    same = len(graph.records) == len(again.records)
    return same and all(_same_operators(a, b) for a, b in zip(graph.records, again.records, strict=True))


def _same_operators(a: Record, b: Record) -> bool:
    return a.shapes == b.shapes and [op.func for op in a.ops] == [op.func for op in b.ops]


def _runs(dense: nn.Module, example: Any, graph: Graph) -> bool:
    """Whether the dense model runs on an example and gives finite numbers; on a copy, for it may write into itself."""
    own = copy.deepcopy(dense)
    try:
        with torch.no_grad(), same_chance():
            outputs = list(tensors_in(run_model(own, map_tensors(example, Tensor.clone), graph.forward_fn)))
    except Exception:
        return False
    return all(bool(t.isfinite().all()) for t in outputs)
