"""What a cut keeps before any training: the plain L1 cut, and what recovery makes of it, on real CIFAR-10.

    python -m benchmarks.recovery [--layers 56 20] [--images 2048] [--seeds 3] [--data ../shared/data]

Filters go by their L1 norm, the same share of every layer, at 2.1 times fewer multiply-accumulates: the inner channels
of blocks, or all channels. Recovery sees training images alone, without augmentation; another seed draws others. Which
channels are cut and which arm is recommended is decided on validation; the test split is read once, at the end.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from espalier import Budget, Plan, Task, criteria, cut, load_task, plan, recovery, trace
from espalier.graph import Graph
from espalier.zoo import cifar_resnet
from espalier.zoo.weights import load_weights

from .tables import table

BATCH = 64
DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
ARMS = ("batch norm re-estimated", "least squares", "both")
Batches = list[tuple[Tensor, Tensor]]


def main() -> None:
    """Run every depth and print a table each."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--layers", type=int, nargs="+", default=[56, 20])
    line.add_argument("--images", type=int, default=2048)
    line.add_argument("--seeds", type=int, default=3)
    line.add_argument("--macs", type=float, default=1 / 2.1)
    line.add_argument("--channels", nargs="+", choices=("inner", "all"), default=["inner", "all"])
    line.add_argument("--data", type=Path, default=DATA)
    line.add_argument("--no-test", action="store_true", help="leave the test split unread")
    options = line.parse_args()
    for layers in options.layers:
        one(layers, options)


def one(layers: int, options: argparse.Namespace) -> None:
    """Cut one network in both ways, recover, and print what validation and test say."""
    task = load_task(f"parquet:{options.data / 'cifar10'}")
    dense = getattr(cifar_resnet, f"cifar_resnet{layers}")()
    load_weights(dense, options.data / "weights" / f"cifar10-resnet{layers}.safetensors")
    dense = dense.to(memory_format=torch.channels_last).eval()
    graph = trace(dense, task.example())
    whole = task.evaluate(dense, task.validation)
    print(f"\nResNet-{layers}, {options.images} training images, {options.seeds} draws; dense {100 * whole:.2f} %\n")
    found = {}
    for channels in options.channels:
        kept = plans(graph, dense, options.macs)[channels]
        found[channels] = arms(task, dense, graph, kept, options)
        ratio = graph.cost().macs / graph.plan_cost(kept).macs
        rows = [[name, *numbers(task, models, seconds)] for name, (models, seconds) in found[channels].items()]
        print(f"{channels} channels cut, {ratio:.2f} times fewer multiply-accumulates, validation:\n")
        print(table([row[:-1] for row in rows], ["", "accuracy (%)", "lowest", "seconds"]) + "\n", flush=True)
        found[channels]["best"] = max(row[-1] for row in rows)
    best = max(found, key=lambda channels: found[channels]["best"])
    found[best].pop("best")
    if not options.no_test:
        print(f"{best} channels, as validation chose; test, read once:\n")
        test(task, dense, found[best])


def plans(graph: Graph, dense: nn.Module, macs: float) -> dict[str, Plan]:
    """Return the plans of the plain L1 cut: inner channels of blocks alone, and all."""
    scores = criteria.magnitude(dense, graph, norm=1, reduce="first", normalise="none")
    stream = [name for name, group in graph.groups.items() if any(s.tensor == "linear.weight" for s in group.slots)]
    stream += [name for name in graph.groups if name.startswith("conv1") or "0.conv2" in name]
    budget = Budget(macs=macs)
    return {
        "inner": plan(graph, scores, budget, strategy="uniform", keep=stream),
        "all": plan(graph, scores, budget, strategy="uniform"),
    }


def arms(task: Task, dense: nn.Module, graph: Graph, kept: Plan, options: argparse.Namespace) -> dict:
    """Return ``{arm: (a network a draw, seconds a network)}``."""
    plain = cut(dense, graph, kept, prove=False)
    models: dict[str, list[nn.Module]] = {"plain L1": [plain]}
    seconds = dict.fromkeys(ARMS, 0.0)
    for batches in draws(task, options):
        start = {}
        for name in ARMS:
            small = copy.deepcopy(start["least squares"] if name == "both" else plain)
            begun = time.perf_counter()
            if name == "least squares":
                recovery.least_squares(dense, small, graph, kept, batches)
            else:
                recovery.reestimate_batch_norm(small, batches)
            seconds[name] += (time.perf_counter() - begun) / options.seeds
            start[name] = small
            models.setdefault(name, []).append(small)
    seconds["both"] += seconds["least squares"]
    return {name: (own, seconds.get(name, 0.0)) for name, own in models.items()}


def draws(task: Task, options: argparse.Namespace) -> Iterator[Batches]:
    """Yield the batches of each draw from the training split."""
    for seed in range(options.seeds):
        loader = replace(task.train, augment=None, batch_size=BATCH, seed=seed, epoch=0)
        batches = islice(loader, options.images // BATCH)
        yield [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in batches]


def numbers(task: Task, models: list[nn.Module], seconds: float) -> tuple[str, str, str, float]:
    """Return mean and lowest accuracy on validation, the seconds, and the mean again as a number."""
    values = [100 * task.evaluate(model, task.validation) for model in models]
    return f"{statistics.fmean(values):.2f}", f"{min(values):.2f}", f"{seconds:.0f}", statistics.fmean(values)


def test(task: Task, dense: nn.Module, found: dict) -> None:
    """Read the test split once for all networks, and print a table."""
    models = {"dense 0": dense} | {f"{arm} {i}": m for arm, (own, _) in found.items() for i, m in enumerate(own)}
    values = task.test_once(models)
    rows = []
    for arm in ("dense", *found):
        own = [100 * value for name, value in values.items() if name.rpartition(" ")[0] == arm]
        mean = statistics.fmean(own)
        rows.append([arm, f"{mean:.2f}", f"{min(own):.2f}", f"{mean - 100 * values['dense 0']:+.2f}"])
    print(table(rows, ["", "accuracy (%)", "lowest", "against dense"]), flush=True)


if __name__ == "__main__":
    main()
