"""Comparing: a cut module beside the replayed and the masked record, in eval and in train mode, in one precision."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core import Plan, ProofError, cause
from ..graph import Graph
from ..recording.capture import quiet, run_model
from ..recording.chance import HIGH, Certain, draws, is_settled, same_chance, shares
from ..recording.record import tensors_in
from ..recording.recorder import Calls
from ..recording.running import forget
from ..recording.skeleton import map_tensors
from ..recording.state import unchanged
from ..recording.tensors import named_tensors
from ..recording.traceable import does_not_run
from ..rescale import rescale
from ..surgery.layers import whole_surgery
from ..surgery.operate import operate
from .agreement import TRAIN_TOLERANCE, Shaken, agree
from .checking import checking_copy, checking_example
from .light_step import light_step
from .masked import MaskedReplay
from .paths import at_checked_values, other_layers, trains_at_any_values
from .replay import oracle
from .trail import Trail, Watch, agree_on_the_way

_DOES_NOT_RUN = (RuntimeError, ValueError, TypeError, IndexError, KeyError)


@dataclass(eq=False)
class Pair:
    """What is compared.

    Attributes:
        graph: what was recorded at the values of ``example``.
        plan: what was cut.
        dense, small: the model before and after, on copies.
        example: what both run on.
        dtype: of all that.
    """

    graph: Graph
    plan: Plan
    dense: nn.Module
    small: nn.Module
    example: Any
    dtype: torch.dtype

    def inputs(self) -> list[Tensor]:
        """Return copies of the example's tensors: a model may write into its input."""
        return [t.clone() for t in tensors_in(self.example)]

    def run(self, model: nn.Module, example: Any = None) -> list[Tensor]:
        """Run one of the two on the example, and return copies of its outputs."""
        own = map_tensors(self.example if example is None else example, Tensor.clone)
        with torch.no_grad(), unchanged(model), same_chance():
            return [t.clone() for t in tensors_in(run_model(model, own, self.graph.forward_fn))]


def compare(model: nn.Module, graph: Graph, plan: Plan, dtype: torch.dtype) -> float:
    """Compare the cut model with what it must compute; return the largest difference of an output in eval mode.

    Raises:
        ProofError: it does not run, or differs.
        ModelError: the uncut model does not run either.
    """
    dense = checking_copy(model, dtype)
    small = forget(operate(dense, whole_surgery(dense, graph, plan)))
    rescale(small, graph, plan)
    check_shapes(graph, plan, small)
    example, again = at_checked_values(graph, plan, dense, checking_example(graph, dtype))
    pair = Pair(again, plan, dense, small, example, dtype)
    chance = Certain() if draws(again.records[0]) else nullcontext()
    try:
        with torch.random.fork_rng(devices=[]):
            with chance:
                gap = _evaluates(pair)
            if len(again.records) > 1:
                _trains(pair)
        return gap
    except ProofError as error:
        if other := other_layers(graph, again):
            raise ProofError(f"{other}; there, {error}") from error
        raise


def check_shapes(graph: Graph, plan: Plan, small: nn.Module) -> None:
    """Check every tensor's shape against the plan.

    Raises:
        ProofError: a shape differs.
    """
    alive = graph.alive(plan)
    tensors = named_tensors(small)
    for name, dims in graph.leaves.items():
        expected = tuple(int(graph.kept(dim, alive).sum()) for dim in dims)
        if tuple(tensors[name].shape) != expected:
            raise ProofError(f"{name} has shape {tuple(tensors[name].shape)}, the plan says {expected}")


def _evaluates(pair: Pair) -> float:
    """Compare in eval mode with the replayed record, on the way too, and with the masked record."""
    try:
        found = pair.run(pair.small)
    except Exception as error:
        if pair.dtype == torch.float32:
            _check_dense(pair)
        raise ProofError(f"the cut model does not run: {cause(error)}") from error
    graph, plan, dtype = pair.graph, pair.plan, pair.dtype
    shaken = _shaken(pair) if dtype == torch.float64 else None
    with unchanged(pair.small):
        trail = Trail()
        replayed = [t.clone() for t in oracle(graph, plan, named_tensors(pair.small), pair.inputs(), trail.note)]
    replay_gap = agree(found, replayed, dtype, "the replayed record", shaken)
    agree_on_the_way(_trail(pair), trail, graph.records[0], dtype)
    try:
        with unchanged(pair.dense):
            masked = MaskedReplay(graph, plan, named_tensors(pair.dense), pair.inputs()).run()
            expected = [t.clone() for t in masked]
    except _DOES_NOT_RUN as error:
        raise ProofError(f"the masked record does not run: {error}") from error
    return max(replay_gap, agree(found, _kept_outputs(graph, plan, expected), dtype, "the masked original", shaken))


def _check_dense(pair: Pair) -> None:
    """See that the uncut model runs: tracing on meta looks at no values, so it can miss that it does not.

    Raises:
        ModelError: it does not.
    """
    try:
        pair.run(pair.dense)
    except Exception as error:
        raise does_not_run(pair.dense, pair.example, error) from error


def _trail(pair: Pair) -> Trail:
    """Return what every operator of the cut model computes."""
    trail = Trail()
    watch = Watch(trail)
    copied = map_tensors(pair.example, Tensor.clone)
    with unchanged(pair.small), torch.no_grad(), quiet(), watch, Calls(watch):
        run_model(pair.small, copied, pair.graph.forward_fn)
    return trail


def _shaken(pair: Pair) -> Shaken:
    """Return how much an output changes when the input is rounded differently: ill-conditioned models amplify that."""
    cache: list[list[Tensor]] = []

    def change(i: int, output: Tensor, scale: float) -> float:
        if not cache:
            near = map_tensors(pair.example, lambda t: t * (1 + 1e-15) if t.is_floating_point() else t)
            cache.append(pair.run(pair.small, near))
        return float((cache[0][i].nan_to_num(0, 0, 0) - output).abs().max()) / (scale + 1e-30)

    return change


def _trains(pair: Pair) -> None:
    """Run forward and backward in train mode, and compare with the masked train record what it says of any values."""
    record = pair.graph.records[1]
    comparable = pair.dtype == torch.float64 and is_settled(record) and trains_at_any_values(pair.graph)
    for share in shares(record) if comparable else (HIGH,):
        with Certain(share), same_chance(), unchanged(pair.small), unchanged(pair.dense):
            _trains_at(pair, comparable)


def _trains_at(pair: Pair, comparable: bool) -> None:
    try:
        with unchanged(pair.small):
            _trains_as(pair, comparable, light_step())
    except ProofError:  # a forward pass that differentiates computes with what was saved: exactly, this time
        _trains_as(pair, comparable, nullcontext())


def _trains_as(pair: Pair, comparable: bool, saving: AbstractContextManager) -> None:
    graph, plan = pair.graph, pair.plan
    try:
        with saving:
            outputs = _stepped(pair.small.train(), pair)
    except Exception as error:
        if _trains_dense(pair):
            raise ProofError(f"the cut model does not train: {cause(error)}") from error
        return
    if not comparable:
        return
    try:
        expected = MaskedReplay(graph, plan, named_tensors(pair.dense), pair.inputs(), training=True).run()
    except _DOES_NOT_RUN as error:
        raise ProofError(f"the masked train record does not run: {error}") from error
    expected = _kept_outputs(graph, plan, expected, training=True)
    found = [t.detach() for t in outputs]
    agree(found, expected, pair.dtype, "the masked original in train mode", None, TRAIN_TOLERANCE)


def _trains_dense(pair: Pair) -> bool:
    """Whether the dense model trains on its example: some are for inference only."""
    try:
        _stepped(copy.deepcopy(pair.dense).train(), pair)
    except Exception:
        return False
    return True


def _stepped(model: nn.Module, pair: Pair) -> list[Tensor]:
    """Run forward and backward; return the outputs."""
    own = map_tensors(pair.example, Tensor.clone)
    outputs = list(tensors_in(run_model(model, own, pair.graph.forward_fn)))
    if any(t.requires_grad for t in outputs):
        total = sum(t.abs().sum() if t.is_complex() else t.sum() for t in outputs if t.requires_grad)
        total.backward()  # type: ignore[union-attr]
        model.zero_grad()  # that they exist was the question; the masked record needs the memory
    return outputs


def _kept_outputs(graph: Graph, plan: Plan, outputs: Sequence[Tensor], *, training: bool = False) -> list[Tensor]:
    """Return the kept part of the outputs (all of it unless outputs were freed)."""
    alive = graph.alive(plan)
    result = []
    for value, tensor in zip(graph.records[int(training)].outputs, outputs, strict=True):
        for d, dim in enumerate(graph.axes.values[training][value]):
            kept = graph.kept(dim, alive)
            if not kept.all():
                tensor = tensor.index_select(d, torch.from_numpy(kept.nonzero()[0]).to(tensor.device))
        result.append(tensor)
    return result
