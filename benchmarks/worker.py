"""One model and one tool, in a process of its own: ``python -m benchmarks.worker TOOL NAME MEMORY_GB``.

Prints one line of JSON a stage, so that a process that is killed leaves what it had reached.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import espalier as es

from .peer import prune_, run

RATIO = 0.5


def main() -> None:
    """Do the stages of one tool; the last line names a failure where there was one."""
    tool, name, memory_gb = sys.argv[1], sys.argv[2], float(sys.argv[3])
    limit = int(memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    at = {"stage": "dense"}
    try:
        model, example = dense(name)
        stages = {"espalier": own_stages, "torch-pruning": peer_stages}[tool]
        for at["stage"] in stages(model, example):
            pass
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), "")
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        emit("failed", during=at["stage"], reason=f"{type(error).__name__}: {text}"[:400], where=where)
        sys.exit(1)


def dense(name: str) -> tuple[nn.Module, Any]:
    """Build the model and see that it runs."""
    model = es.model(name).eval()
    example = es.default_example(model, name)
    with timed() as clock, torch.no_grad():
        run(model, example)
    emit("dense", seconds=clock.seconds, params=parameters(model))
    return model, example


def own_stages(model: nn.Module, example: Any) -> Iterator[str]:
    """Trace; cut half of every group, with proof; then plan for half of the MACs. Yields the stage that begins."""
    yield "trace"
    with timed() as clock:
        graph = es.trace(model, example)
    whole = graph.cost()
    emit("trace", seconds=clock.seconds, groups=len(graph.groups), share=graph.prunable_share, macs=whole.macs)
    yield "cut"
    plan = half_of_everything(graph)
    with timed() as clock:
        small = es.cut(model, graph, plan, prove=True)
    cost = graph.plan_cost(plan)
    emit("cut", seconds=clock.seconds, params_ratio=cost.params / whole.params, macs_ratio=cost.macs / whole.macs)
    del small
    yield "budget"
    with timed() as clock:
        scores = es.criteria.magnitude(model, graph)
        plan = es.plan(graph, scores, es.Budget(macs=RATIO), strategy="uniform")
        small = es.cut(model, graph, plan, prove=False)
    with torch.no_grad():
        run(small, example)
    reached = graph.plan_cost(plan).macs / whole.macs
    emit("budget", seconds=clock.seconds, macs_ratio=reached, notes=list(plan.notes)[:3])
    yield "done"


def half_of_everything(graph: Any) -> Any:
    """Return the plan that keeps every second unit of every group, as near as the ties allow."""
    sizes = graph.sizes
    counts = {**sizes, **graph.feasible({name: max(1, round(size * RATIO)) for name, size in sizes.items()})}
    keep = {}
    for name, count in counts.items():
        if count < sizes[name]:
            keep[name] = tuple(i * sizes[name] // count for i in range(count))
    return es.Plan(keep, graph.fingerprint)


def peer_stages(model: nn.Module, example: Any) -> Iterator[str]:
    """Prune at one ratio and run the result. Yields the stage that begins."""
    yield "prune"
    before, shapes = (parameters(model), macs(model, example)), output_shapes(model, example)
    with timed() as clock:
        prune_(model, example, RATIO)
    after = parameters(model)
    emit("prune", seconds=clock.seconds, params_ratio=after / before[0])
    yield "forward after pruning"
    with torch.no_grad():
        run(model, example)
    if after == before[0]:
        raise RuntimeError("nothing was pruned")
    if output_shapes(model, example) != shapes:
        raise RuntimeError("the network's own outputs were pruned")
    emit("forward", macs_ratio=macs(model, example) / before[1])
    yield "done"


def output_shapes(model: nn.Module, example: Any) -> list[tuple[int, ...]]:
    """Return the shapes of all output tensors."""
    with torch.no_grad():
        return [tuple(leaf.shape) for leaf in tree_leaves(run(model, example)) if isinstance(leaf, Tensor)]


def macs(model: nn.Module, example: Any) -> int:
    """Count multiply-accumulates of one forward pass with PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(model, example)
    return max(1, counter.get_total_flops() // 2)


def parameters(model: nn.Module) -> int:
    """Count the elements of all parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters())


class Clock:
    """CPU seconds of a block."""

    seconds = 0.0


@contextlib.contextmanager
def timed() -> Iterator[Clock]:
    """Measure CPU seconds, so that a busy machine does not matter."""
    clock, start = Clock(), time.process_time()
    yield clock
    clock.seconds = round(time.process_time() - start, 3)


def emit(stage: str, **fields: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps({"stage": stage, **fields}), flush=True)


if __name__ == "__main__":
    main()
