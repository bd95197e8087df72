"""Measured latency: half of ResNet-50's MACs, budgets of milliseconds, and MobileNetV2 beside Torch-Pruning's cut.

    python -m benchmarks.latency [--only macs targets mobilenet] [--tables FOLDER] [--threads 1] [--rounds 31]

Every figure is the median ratio, small over dense, of interleaved rounds in one process, with its 95 % interval: on a
machine that does other work the milliseconds drift, their ratio much less. Weights are random: they change no time.

macs       ResNet-50 at 224, ONNX Runtime: half the MACs, widths in multiples of 16, and of 1 beside it
targets    ResNet-50 at 224, ONNX Runtime: 0.7, 0.5 and 0.3 of the dense network's latency, met by trial cuts
mobilenet  MobileNetV2 at 224, eager and ONNX Runtime, at 0.28 of the MACs: ours, and Torch-Pruning's uniform cut
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import espalier as es
from espalier import measure
from espalier.graph import Graph
from espalier.selection import STRATEGIES, Tables

from .peer import prune_

IMAGE = (1, 3, 224, 224)
SHARE = 0.28  # of MobileNetV2's MACs, where its peers stay at 0.54 of the eager latency


def main() -> None:
    """Run the parts that were asked for and print a table of each."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    line.add_argument("--tables", type=Path, help="folder of measured tables: read if there, else written")
    line.add_argument("--threads", type=int, default=1)
    line.add_argument("--rounds", type=int, default=31)
    options = line.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.only:
        print(f"\n## {name} (load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)\n", flush=True)
        PARTS[name](options)


def traced(name: str) -> tuple[nn.Module, Graph]:
    """Return a network with random weights, and its graph."""
    torch.manual_seed(0)
    model = es.model(f"torchvision:{name}").eval()
    return model, es.trace(model, torch.zeros(2, *IMAGE[1:]))


def tables_of(name: str, model: nn.Module, graph: Graph, backend: str, options: argparse.Namespace) -> Tables:
    """Read the tables of this network and backend, or measure and keep them."""
    path = options.tables and options.tables / f"{name}-{backend}-{options.threads}.json"
    if path and path.exists():
        tables = Tables.from_json(path.read_text())
        measure.check_tables(tables, model, graph)
        return tables
    tables = measure.latency_tables(model, graph, backend=backend, threads=options.threads)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tables.to_json())
    return tables


def raced(model: nn.Module, small: nn.Module, backend: str, options: argparse.Namespace) -> str:
    """Return the measured ratio with its interval."""
    found = measure.race(
        model, small, torch.randn(IMAGE), rounds=options.rounds, backend=backend, threads=options.threads
    )
    low, middle, high = found.ratio
    return f"{middle:.3f} [{low:.3f}, {high:.3f}] | {found.before.median_ms:.1f} | {found.after.median_ms:.1f}"


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*names: str) -> None:
    row(*names)
    row(*["---"] * len(names))


def macs(options: argparse.Namespace) -> None:
    """Halve ResNet-50's MACs."""
    model, graph = traced("resnet50")
    scores = es.criteria.magnitude(model, graph)
    head("strategy", "round_to", "MACs", "latency", "dense, ms", "small, ms")
    for strategy, multiple in (("isomorphic", 16), ("uniform", 16), ("uniform", 1)):
        plan = es.plan(graph, scores, es.Budget(macs=0.5), strategy=strategy, round_to=multiple)
        share = graph.plan_cost(plan).macs / graph.cost().macs
        small = es.cut(model, graph, plan, prove=False)
        row(strategy, multiple, f"{share:.3f}", raced(model, small, "onnxruntime", options))


def targets(options: argparse.Namespace) -> None:
    """Meet three latency targets of ResNet-50."""
    model, graph = traced("resnet50")
    scores = es.criteria.magnitude(model, graph)
    tables = tables_of("resnet50", model, graph, "onnxruntime", options)
    head("target", "measured over target", "reached", "ratio", "MACs", "trials", "note")
    for ratio in (0.7, 0.5, 0.3):
        budget = es.Budget(latency_ratio=ratio)

        def choose(now: Tables, budget: es.Budget = budget) -> es.Plan:
            return es.plan(graph, scores, budget, strategy="isomorphic", tables=now)

        met = measure.meet(model, graph, choose, budget=budget, tables=tables)
        best = next(trial for trial in met.trials if trial.plan is met.plan)
        low, middle, high = best.ratio
        share = graph.plan_cost(met.plan).macs / graph.cost().macs
        interval = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        row(ratio, f"{middle / ratio:.3f}", met.reached, interval, f"{share:.3f}", len(met.trials), met.note)


def mobilenet(options: argparse.Namespace) -> None:
    """Cut MobileNetV2 to the same MACs as the peer does."""
    model, graph = traced("mobilenet_v2")
    scores = es.criteria.magnitude(model, graph)
    peer = peer_at(model, SHARE, lambda small: es.trace(small, torch.zeros(2, *IMAGE[1:])).cost().macs)
    peer_share = es.trace(peer, torch.zeros(2, *IMAGE[1:])).cost().macs / graph.cost().macs
    head("backend", "cut", "MACs", "latency", "dense, ms", "small, ms")
    for backend in ("eager", "onnxruntime"):
        tables = tables_of("mobilenet_v2", model, graph, backend, options)
        plan, words = fastest(graph, scores, tables)
        share = graph.plan_cost(plan).macs / graph.cost().macs
        row(backend, f"ours, {words}", f"{share:.3f}", raced(model, es.cut(model, graph, plan), backend, options))
        row(backend, "torch-pruning, uniform", f"{peer_share:.3f}", raced(model, peer, backend, options))


def fastest(graph: Graph, scores: dict, tables: Tables) -> tuple[es.Plan, str]:
    """Return, of the plans at the MACs, the one that is fastest by the tables, and how it was made."""
    made = {}
    for strategy, multiple in itertools.product(STRATEGIES, (1, 8, 16)):
        plan = es.plan(graph, scores, es.Budget(macs=SHARE), strategy=strategy, round_to=multiple)
        made[f"{strategy}, multiples of {multiple}"] = plan
    words = min(made, key=lambda name: measure.predicted_ms(graph, made[name], tables))
    return made[words], words


def peer_at(model: nn.Module, share: float, macs_of: Callable[[nn.Module], int]) -> nn.Module:
    """Return Torch-Pruning's cut whose MACs are nearest to ``share``, by bisection on its ratio."""
    low, high, whole = 0.1, 0.9, macs_of(model)
    best, near = model, 1.0
    for _ in range(8):
        middle = (low + high) / 2
        small = prune_(copy.deepcopy(model), torch.randn(IMAGE), middle)
        got = macs_of(small) / whole
        if abs(got - share) < near:
            best, near = small, abs(got - share)
        low, high = (middle, high) if got > share else (low, middle)
    return best.eval()


PARTS = {"macs": macs, "targets": targets, "mobilenet": mobilenet}

if __name__ == "__main__":
    main()
