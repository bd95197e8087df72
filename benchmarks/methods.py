"""Methods that prune while they train, on real CIFAR-10, each against simpler ones at equal MACs and epochs.

    python -m benchmarks.methods [--studies fisher c2s2] [--networks 20] [--seeds 0 1 2] [--epochs 8] [--table]

fisher   Group Fisher normalised by memory, by MACs and not at all, its internal units alone; magnitude, Taylor
c2s2     C2S2 within half a point of validation; then, at the MACs that it came to with the same seed: L1 filters,
         network slimming, and every layer alike at random

All arms train half of the epochs in their first stretch and half in a second one, with the same schedules. Each
finished run is a row in the results folder: a benchmark that was stopped goes on where it was, several processes share
the work. The test split is read once a run. Network 16 is VGG-16 at a quarter of its width, which is trained first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import espalier as es
from espalier.core.atomic import replacing
from espalier.measure import race
from espalier.recipes import Finetune, Measure, Prune, Recipe, Training

from . import cifar
from .cifar_arms import Bench, Item, Place, tested, trained, training
from .cifar_results import OURS, Ledger, Row, compared

RESULTS = Path("runs") / "bench-methods"
FOUND = 0.0  # an item's ratio where the MACs are those that C2S2 came to
DENSE_EPOCHS, DENSE_SEED = 20, 1000  # of VGG-16, whose weights nobody publishes
SLIMMING = 1e-4  # network slimming's L1 on batch norms' scales
NAMES = {20: "cifar_resnet20", 56: "cifar_resnet56", 16: "cifar_vgg16_quarter"}


@dataclass(frozen=True)
class Timed(Row):
    """A row with the time of the small network over that of the dense one, in turns."""

    latency_ratio: float = 1.0


Arm = Callable[[Bench], tuple[nn.Module, float]]


def halves(item: Item) -> tuple[int, int]:
    """Return the epochs of both stretches."""
    return item.epochs - item.epochs // 2, item.epochs // 2


def by_recipe(**prune: Any) -> Arm:
    """Return an arm that prunes in a recipe; its step's training is the first stretch."""

    def run(bench: Bench) -> tuple[nn.Module, float]:
        first, second = halves(bench.item)
        schedule = "constant" if prune.get("method") == "c2s2" else "cosine"
        budget = {} if "max_drop" in prune else {"macs": int(bench.budget)}
        step = Prune(finetune=training(first, schedule=schedule), **{**budget, **prune})
        last = Finetune(**training(second).model_dump())
        recipe = Recipe(steps=(step, last, Measure(latency=False)), seed=bench.item.seed)
        task = bench.task if "max_drop" in prune else bench.brief
        result = es.compress(bench.dense, task, recipe)
        assert result.run.after.accuracy is not None
        return result.model, result.run.after.accuracy

    return run


def by_scores(strategy: str, scores: Callable[[nn.Module, Any, int], dict]) -> Arm:
    """Return an arm that cuts at once by some scores, and trains both stretches."""

    def run(bench: Bench) -> tuple[nn.Module, float]:
        graph = es.trace(bench.dense, bench.task.example())
        plan = es.plan(
            graph, scores(bench.dense, graph, bench.item.seed), es.Budget(macs=int(bench.budget)), strategy=strategy
        )
        small = es.cut(bench.dense, graph, plan)
        for epochs in halves(bench.item):
            small = trained(bench, small, training(epochs))
        outcome = tested(bench, small)
        return outcome.model, outcome.test

    return run


def slimming(bench: Bench) -> tuple[nn.Module, float]:
    """Train with an L1 on batch norms' scales, prune by them over the whole network, and fine-tune."""
    first, second = halves(bench.item)
    budget = es.Budget(macs=int(bench.budget))

    def regularise(model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.weight.grad is not None:
                module.weight.grad.add_(SLIMMING * module.weight.detach().sign())

    dense = trained(bench, bench.dense, training(first), regularise=regularise)
    graph = es.trace(dense, bench.task.example())
    small = es.cut(dense, graph, es.plan(graph, es.criteria.bn_scale(dense, graph), budget, strategy="global"))
    outcome = tested(bench, trained(bench, small, training(second), first_epoch=first))
    return outcome.model, outcome.test


def l1(model: nn.Module, graph: Any, seed: int) -> dict:
    return es.criteria.magnitude(model, graph, norm=1, reduce="first", normalise="none")


STUDIES: dict[str, tuple[str, dict[str, Arm]]] = {
    "fisher": (
        "group_fisher",
        {
            "group_fisher": by_recipe(method="group_fisher"),
            "fisher_macs": by_recipe(method="group_fisher", options={"normalise": "macs"}),
            "fisher_none": by_recipe(method="group_fisher", options={"normalise": "none"}),
            "fisher_internal": by_recipe(method="group_fisher", options={"internal": True}),
            "magnitude": by_recipe(criterion="magnitude"),
            "taylor": by_recipe(criterion="taylor"),
        },
    ),
    "c2s2": (
        "c2s2",
        {
            "c2s2": by_recipe(method="c2s2", max_drop=0.5),
            "l1_filters": by_scores("uniform", l1),
            "slimming": slimming,
            "uniform": by_scores("uniform", lambda model, graph, seed: es.criteria.random(model, graph, seed=seed)),
        },
    ),
}
ARMS = {name: arm for _, arms in STUDIES.values() for name, arm in arms.items()}


def main() -> None:
    """Do what is not done, and print the tables."""
    options = parsed()
    torch.set_num_threads(options.threads)
    ledger = Ledger(options.results, Timed)
    items = order(options)
    if not options.table:
        place = Place(options.data, options.results, torch.device(options.device))
        cifar.work(items, ledger, place, (lambda item, place: one(item, place, ledger), key))
    wanted = {key(item) for item in items}
    print(report([row for row in ledger.rows() if row.key in wanted], options.studies))


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--studies", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    line.add_argument("--networks", type=int, nargs="+", choices=list(NAMES), default=[20])
    line.add_argument("--ratio", type=float, default=2.0, help="times fewer MACs, of the study fisher")
    line.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    line.add_argument("--epochs", type=int, default=8)
    line.add_argument("--data", type=Path, default=cifar.DATA)
    line.add_argument("--results", type=Path, default=RESULTS, help="folder")
    line.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    line.add_argument("--threads", type=int, default=1)
    line.add_argument("--table", action="store_true", help="only print what there is")
    return line.parse_args()


def order(options: argparse.Namespace) -> list[Item]:
    """Return the work, seed by seed; C2S2 before those that need its MACs."""
    return [
        Item(network, options.ratio if study == "fisher" else FOUND, arm, seed, options.epochs)
        for study in options.studies
        for network in options.networks
        for seed in options.seeds
        for arm in STUDIES[study][1]
    ]


def key(item: Item) -> tuple:
    """Return the key of an item's row; rows of another setup are another's."""
    return (item.network, item.ratio, item.arm, item.seed, item.epochs, setup(item))


def setup(item: Item) -> str:
    """Return in words how all arms train."""
    return training(0).model_dump_json(exclude_defaults=True)


def one(item: Item, place: Place, ledger: Ledger) -> Row:
    """Run an arm and measure what it leaves."""
    begun = time.perf_counter()
    task = es.load_task(f"parquet:{place.data / 'cifar10'}", batch_size=cifar.BATCH, seed=item.seed)
    dense = dense_network(item, task, place)
    dense_macs = es.trace(dense, task.example()).cost().macs
    ratio = item.ratio if item.arm == "c2s2" or item.ratio != FOUND else dense_macs / found(item, ledger)
    torch.manual_seed(item.seed)
    reference = dense_network(item, task, place)
    model, test = ARMS[item.arm](Bench(replace(item, ratio=ratio), task, dense, place))
    cost = es.trace(model, task.example()).cost()
    clock = race(reference.eval(), model.eval(), task.example(8), rounds=15)
    return Timed(
        **vars(item),
        setup=setup(item),
        macs=cost.macs,
        dense_macs=dense_macs,
        params=cost.params,
        validation=task.evaluate(model, task.validation),
        test=test,
        seconds=time.perf_counter() - begun,
        machine=f"{place.device.type}, {torch.get_num_threads()} threads",
        latency_ratio=clock.ratio[1],
    )


def found(item: Item, ledger: Ledger) -> int:
    """Return the MACs that C2S2 came to with the same seed; wait for who has it in hand."""
    wanted = key(replace(item, arm="c2s2"))
    while True:
        rows = [row for row in ledger.rows() if row.key == wanted]
        if rows:
            return rows[0].macs
        time.sleep(cifar.WAIT_SECONDS)


def dense_network(item: Item, task: Any, place: Place) -> nn.Module:
    """Return the dense network; VGG-16 is trained first, once for all."""
    name = NAMES[item.network]
    if item.network != 16:
        weights = place.data / "weights" / f"cifar10-resnet{item.network}.safetensors"
        return es.model(f"espalier:{name}", weights=weights).requires_grad_(True)
    torch.manual_seed(DENSE_SEED)
    model = es.model(f"espalier:{name}")
    path = place.results / f"dense-{name}-{DENSE_EPOCHS}.safetensors"
    if not path.exists():
        whole = Item(item.network, 1.0, "dense", DENSE_SEED, DENSE_EPOCHS)
        how: Training = training(DENSE_EPOCHS, lr=0.1)
        model = trained(Bench(whole, task.new_run(), model, place), model, how)
        with replacing(path) as temporary:
            save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, temporary)
    model.load_state_dict(load_file(path))
    return model


def report(rows: Iterable[Row], studies: list[str]) -> str:
    """Return a table a study and network; the first arm is what the others are compared with."""
    rows, parts = list(rows), []
    for study in studies:
        ours, arms = STUDIES[study]
        own = [row for row in rows if row.arm in arms]
        for network, epochs in sorted({(row.network, row.epochs) for row in own}):
            here = [row for row in own if (row.network, row.epochs) == (network, epochs)]
            named = [replace(row, arm=OURS if row.arm == ours else row.arm) for row in here]
            clocks = {arm: [row.latency_ratio for row in here if row.arm == arm] for arm in arms}  # type: ignore[attr-defined]
            times = ", ".join(f"{arm} {sum(own) / len(own):.2f}" for arm, own in clocks.items() if own)
            parts.append(
                f"{study} on {NAMES[network]}, {epochs} epochs; ours is {ours}\n\n{compared(named)}\n\n"
                f"time on this machine over the dense network's, batch 8: {times}"
            )
    return "\n\n".join(parts) or "no results yet"


if __name__ == "__main__":
    main()
