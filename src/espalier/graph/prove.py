"""Prove: a cut model must compute what the masked original and the replayed record compute.

    (1) shapes        (2) cut module = record replayed with the sliced tensors, operator by operator (``trail.py``)
    (3) cut module = masked dense record (``masked.py``)        (4) one forward and backward in train mode,
    compared with the masked train record where nothing in it is random

In float64 at a relative tolerance of 1e-8; in float32 at 1e-3 where the model cannot run in float64 or its weights
exceed 2 GB; shapes only on meta. Small, zero and constant tensors are randomised first: zero-initialised heads and tiny
layer scales would make every comparison pass.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..core import EspalierError, ModelError, Plan, ProofError, cause
from .agreement import TRAIN_TOLERANCE, Shaken, agree
from .capture import quiet, run_model
from .checking import checking_copy, checking_example
from .graph import Graph
from .kinds import check_cut
from .layers import whole_surgery
from .masked import MaskedReplay
from .operate import forget, operate
from .record import tensors_in
from .recorder import Calls
from .replay import oracle
from .rescale import rescale
from .skeleton import map_tensors
from .state import unchanged
from .tensors import named_tensors
from .trace import trace
from .traceable import does_not_run
from .trail import Trail, Watch, agree_on_the_way

LARGE_BYTES = 2 * 2**30


def prove(model: nn.Module, graph: Graph, plan: Plan) -> str:
    """Prove a plan on a copy of the model; return how: "float64", "float32" or "shapes".

    Raises:
        ProofError: the cut model does not run, or differs from the oracle or the witness; names the groups.
    """
    check_cut("prove", model, graph, plan)
    try:
        return _prove(model, graph, plan)
    except ProofError as error:
        guilty = _guilty(model, graph, plan)
        names = ", ".join(guilty) if guilty else "no group alone: " + ", ".join(list(plan.keep)[:4])
        advice = "es.freeze(graph, groups, reason) keeps groups whole"
        raise ProofError(f"{error} (groups: {names}){_decided(graph, plan)}. {advice}", tuple(guilty)) from error


def _decided(graph: Graph, plan: Plan) -> str:
    """Say which decisions of the model's Python this plan changes: the likely cause."""
    counts = list(graph.counts(plan).values())
    turned = [
        f"Python found {c.text} at {c.source}, which this cut changes" for c in graph.conditions if not c.holds(counts)
    ]
    bare = [f"a size becomes a bare number at {c.source}" for c in graph.losses if not c.holds(counts)]
    return "".join(f"; {text}" for text in dict.fromkeys([*turned, *bare]))


def _prove(model: nn.Module, graph: Graph, plan: Plan) -> str:
    tensors = named_tensors(model)
    if any(t.is_meta for t in tensors.values()):
        check_shapes(graph, plan, operate(model, whole_surgery(model, graph, plan)))
        return "shapes"
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size <= LARGE_BYTES and vars(graph).get("runs_in_double", True):
        try:
            _compare(model, graph, plan, torch.float64)
            return "float64"
        except ProofError:
            if _runs_in_double(model, graph):
                raise
    _compare(model, graph, plan, torch.float32)
    return "float32"


class _SeesSingles(TorchDispatchMode):
    """Notices operators that compute in less than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.single = False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.single |= any(t.dtype in (torch.float32, torch.float16, torch.bfloat16) for t in tensors_in(result))
        return result


def _runs_in_double(model: nn.Module, graph: Graph) -> bool:
    """Whether the model runs wholly in float64: hard-coded dtypes do not."""
    if "runs_in_double" not in vars(graph):
        twin, seen = checking_copy(model, torch.float64), _SeesSingles()
        example = checking_example(graph, torch.float64)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), seen:
                run_model(twin, example, graph.forward_fn)
            vars(graph)["runs_in_double"] = not seen.single
        except Exception:
            vars(graph)["runs_in_double"] = False
    return vars(graph)["runs_in_double"]


def _compare(model: nn.Module, graph: Graph, plan: Plan, dtype: torch.dtype) -> None:
    dense = checking_copy(model, dtype)
    small = forget(operate(dense, whole_surgery(dense, graph, plan)))
    rescale(small, graph, plan)
    check_shapes(graph, plan, small)
    example = checking_example(graph, dtype)
    graph = _at_checked_values(graph, plan, dense, example)
    inputs = [t.clone() for t in tensors_in(example)]
    with torch.random.fork_rng(devices=[]):
        try:
            found = _run(small, example, graph)
        except ProofError:
            if dtype == torch.float32:
                _check_dense(dense, example, graph)
            raise
        shaken = _shaken(small, example, graph) if dtype == torch.float64 else None
        with unchanged(small):
            trail, copies = Trail(), [t.clone() for t in inputs]
            replayed = [t.clone() for t in oracle(graph, plan, named_tensors(small), copies, trail.note)]
        agree(found, replayed, dtype, "the replayed record", shaken)
        agree_on_the_way(_trail(small, example, graph), trail, graph.records[0], dtype)
        try:
            with unchanged(dense):
                expected = [t.clone() for t in MaskedReplay(graph, plan, named_tensors(dense), inputs).run()]
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise ProofError(f"the masked record does not run: {error}") from error
        agree(found, _kept_outputs(graph, plan, expected), dtype, "the masked original", shaken)
        if len(graph.records) > 1:
            _trains(small, dense, graph, plan, dtype)


def _at_checked_values(graph: Graph, plan: Plan, dense: nn.Module, example: Any) -> Graph:
    """Trace again where Python looks at values (tokens sent to experts): the cut model's path must be the recorded one.

    The masked dense model takes the cut model's path, because setting what is removed to zero computes the same values.
    """
    if graph.records[0].on_meta:
        return graph
    masked = copy.deepcopy(dense)
    tensors = named_tensors(masked)
    for one in graph.surgery(plan).slices.values():
        gone = torch.ones(one.size, dtype=torch.bool)
        gone[list(one.keep)] = False
        with torch.no_grad():
            tensors[one.tensor].index_fill_(one.dim, gone.nonzero().flatten().to(tensors[one.tensor].device), 0)
    try:
        again = trace(masked, example, graph.forward_fn)
    except ModelError as error:
        raise ProofError(f"the masked model does not run: {error}") from error
    if again.fingerprint != graph.fingerprint:
        raise ProofError("the model's groups change with its inputs' values; the cut cannot be proved")
    return again


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


def _run(small: nn.Module, example: Any, graph: Graph) -> list[Tensor]:
    try:
        with torch.no_grad(), unchanged(small):
            own = map_tensors(example, Tensor.clone)  # a model may write into its input
            return [t.clone() for t in tensors_in(run_model(small, own, graph.forward_fn))]
    except Exception as error:
        raise ProofError(f"the cut model does not run: {cause(error)}") from error


def _check_dense(dense: nn.Module, example: Any, graph: Graph) -> None:
    """See that the uncut model runs: tracing on meta looks at no values, so it can miss that it does not.

    Raises:
        ModelError: it does not.
    """
    try:
        with torch.no_grad(), unchanged(dense):
            run_model(dense, example, graph.forward_fn)
    except Exception as error:
        raise does_not_run(dense, example, error) from error


def _trail(small: nn.Module, example: Any, graph: Graph) -> Trail:
    """Return what every operator of the cut model computes."""
    trail = Trail()
    watch = Watch(trail)
    copied = map_tensors(example, Tensor.clone)
    with unchanged(small), torch.no_grad(), quiet(), watch, Calls(watch):
        run_model(small, copied, graph.forward_fn)
    return trail


def _shaken(small: nn.Module, example: Any, graph: Graph) -> Shaken:
    """Return how much an output changes when the input is rounded differently: ill-conditioned models amplify that."""
    cache: list[list[Tensor]] = []

    def change(i: int, output: Tensor, scale: float) -> float:
        if not cache:
            near = map_tensors(example, lambda t: t * (1 + 1e-15) if t.is_floating_point() else t)
            cache.append(_run(small, near, graph))
        return float((cache[0][i].nan_to_num(0, 0, 0) - output).abs().max()) / (scale + 1e-30)

    return change


def _trains(small: nn.Module, dense: nn.Module, graph: Graph, plan: Plan, dtype: torch.dtype) -> None:
    """Run forward and backward in train mode; compare with the masked train record where nothing in it is random."""
    example = checking_example(graph, dtype)
    inputs = [t.clone() for t in tensors_in(example)]
    try:
        outputs = _stepped(small.train(), example, graph)
    except Exception as error:
        if _trains_dense(dense, graph, dtype):
            raise ProofError(f"the cut model does not train: {cause(error)}") from error
        return
    record = graph.records[1]
    if dtype != torch.float64 or not record.on_meta or record.is_random():
        return
    try:
        expected = MaskedReplay(graph, plan, named_tensors(dense), inputs, training=True).run()
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        raise ProofError(f"the masked train record does not run: {error}") from error
    expected = _kept_outputs(graph, plan, expected, training=True)
    agree([t.detach() for t in outputs], expected, dtype, "the masked original in train mode", None, TRAIN_TOLERANCE)


def _trains_dense(dense: nn.Module, graph: Graph, dtype: torch.dtype) -> bool:
    """Whether the dense model trains on its example: some are for inference only."""
    try:
        _stepped(copy.deepcopy(dense).train(), checking_example(graph, dtype), graph)
    except Exception:
        return False
    return True


def _stepped(model: nn.Module, example: Any, graph: Graph) -> list[Tensor]:
    """Run forward and backward; return the outputs."""
    outputs = list(tensors_in(run_model(model, example, graph.forward_fn)))
    if any(t.requires_grad for t in outputs):
        total = sum(t.abs().sum() if t.is_complex() else t.sum() for t in outputs if t.requires_grad)
        total.backward()  # type: ignore[union-attr]
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


def _guilty(model: nn.Module, graph: Graph, plan: Plan) -> list[str]:
    """Return groups that fail when cut alone (up to four; ties are followed)."""
    guilty: list[str] = []
    for name in plan.keep:
        if len(plan.keep[name]) == graph.sizes[name]:
            continue
        try:
            counts = graph.feasible({name: len(plan.keep[name])})
            keep = {
                n: plan.keep.get(n, tuple(range(graph.sizes[n])))[:k] for n, k in counts.items() if k < graph.sizes[n]
            }
            if all(len(units) == counts[n] for n, units in keep.items()):
                _prove(model, graph, Plan(keep))
        except ProofError:
            guilty.append(name)
        except EspalierError:
            continue
        if len(guilty) == 4:
            break
    return guilty
