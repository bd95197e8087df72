"""Prove: a cut model must compute what the masked original and the replayed record compute.

    (1) shapes        (2) cut module = record replayed with the sliced tensors, operator by operator (``trail.py``)
    (3) cut module = masked dense record (``masked.py``)        (4) one forward and backward in train mode, compared
    with the masked train record; random operators give their mean in both (``chance.py``)

In float64 at a relative tolerance of 1e-8; in float32 at 1e-3 where the model cannot run in float64 or its weights
exceed 2 GB; shapes only on meta. Small, zero and constant tensors are randomised first: zero-initialised heads and tiny
layer scales would make every comparison pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...core import EspalierError, Plan, ProofError
from ..graph import Graph
from ..kinds import check_cut
from ..recording.autocast import without_autocast
from ..recording.capture import run_model
from ..recording.record import tensors_in
from ..recording.tensors import named_tensors
from ..surgery.layers import whole_surgery
from ..surgery.operate import operate
from .checking import checking_copy, checking_example
from .comparing import check_shapes, compare

LARGE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Proof:
    """What was proved.

    Attributes:
        kind: "float64", "float32" or "shapes".
        gap: largest difference that was found between outputs, a share of their magnitude; None of shapes.
    """

    kind: str
    gap: float | None = None


def prove(model: nn.Module, graph: Graph, plan: Plan) -> str:
    """Prove a plan on a copy of the model; return how: "float64", "float32" or "shapes".

    Raises:
        ProofError: the cut model does not run, or differs from the oracle or the witness; names the groups.
    """
    return proof_of(model, graph, plan).kind


def proof_of(model: nn.Module, graph: Graph, plan: Plan) -> Proof:
    """Prove a plan as ``prove`` does; return what was found too."""
    check_cut("prove", model, graph, plan)
    try:
        return _prove(model, graph, plan)
    except ProofError as error:
        guilty = _guilty(model, graph, plan)
        names = ", ".join(guilty) if guilty else "no group alone: " + (", ".join(list(plan.keep)[:4]) or "none is cut")
        advice = "es.freeze(graph, groups, reason) keeps groups whole"
        if "masked" not in str(error):  # the model's own Python stands in the way; the record has none
            advice += "; es.to_graph_module(model, graph, plan) gives the plan's result as a program of operators"
        raise ProofError(f"{error} (groups: {names}){_decided(graph, plan)}. {advice}", tuple(guilty)) from error


def _decided(graph: Graph, plan: Plan) -> str:
    """Say which decisions of the model's Python this plan changes: the likely cause."""
    counts = list(graph.counts(plan).values())
    turned = [
        f"Python found {c.text} at {c.source}, which this cut changes" for c in graph.conditions if not c.holds(counts)
    ]
    bare = [f"a size becomes a bare number at {c.source}" for c in graph.losses if not c.holds(counts)]
    return "".join(f"; {text}" for text in dict.fromkeys([*turned, *bare]))


@without_autocast()
def _prove(model: nn.Module, graph: Graph, plan: Plan) -> Proof:
    tensors = named_tensors(model)
    if any(t.is_meta for t in tensors.values()):
        check_shapes(graph, plan, operate(model, whole_surgery(model, graph, plan)))
        return Proof("shapes")
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    if size <= LARGE_BYTES and vars(graph).get("runs_in_double", True):
        try:
            return Proof("float64", compare(model, graph, plan, torch.float64))
        except ProofError:
            if _runs_in_double(model, graph):
                raise
    return Proof("float32", compare(model, graph, plan, torch.float32))


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
