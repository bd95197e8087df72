"""Distillation against plain fine-tuning: the digits network cut to a share of its MACs, paired seeds.

    python -m benchmarks.distillation [--seeds 5] [--macs 0.3] [--epochs 3] [--split test]

For each seed one dense network is trained and cut once, and the cut one's batch norms are re-estimated; every arm then
fine-tunes its own copy with the same batches in the same order. Accuracy is that of the last epoch; the test split is
read once a seed, by all arms together. With ``--split validation`` the same table on validation, for choices. The
interval is Student's, 95 %, of the paired differences from plain fine-tuning.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import espalier as es
from espalier.losses import AttentionTransfer, FeatureHints, Hinton, LogitRegression, Objective, Together
from espalier.recovery import reestimate_batch_norm
from espalier.tasks import Task

from .demo import interval

ARMS: dict[str, Objective | None] = {
    "plain": None,
    "Hinton": Hinton(),
    "logit regression": LogitRegression(),
    "hints, index": FeatureHints(),
    "hints, learned": FeatureHints(adapter="learned"),
    "attention": AttentionTransfer(),
    "Hinton + hints": Together((Hinton(), FeatureHints())),
}


def main() -> None:
    """Run the seeds and print one row each, and one row an arm."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--seeds", type=int, default=5)
    line.add_argument("--macs", type=float, default=0.3)
    line.add_argument("--epochs", type=int, default=3)
    line.add_argument("--split", choices=("test", "validation"), default="test")
    options = line.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    columns = ["dense", "cut", *ARMS]
    print("| seed | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    rows = []
    for seed in range(options.seeds):
        rows.append(one(seed, options.macs, options.epochs, options.split))
        print(f"| {seed} | " + " | ".join(f"{100 * rows[-1][name]:.2f}" for name in columns) + " |", flush=True)
    print("\n| arm | mean accuracy (%) | paired difference (points) | 95 % interval |\n" + "|---" * 4 + "|")
    for name in ARMS:
        differences = [100 * (row[name] - row["plain"]) for row in rows]
        mean, half = interval(differences)
        accuracy = 100 * sum(row[name] for row in rows) / len(rows)
        print(f"| {name} | {accuracy:.2f} | {mean:+.2f} | [{mean - half:+.2f}, {mean + half:+.2f}] |")
    print(f"\n{options.split} split, n = {len(rows)} seeds, {time.perf_counter() - start:.0f} s.")


def one(seed: int, macs: float, epochs: int, split: str) -> dict[str, float]:
    """Return the accuracy of the dense network, of the cut one, and of every arm after its last epoch."""
    task = es.load_task("digits", batch_size=64, seed=seed)
    torch.manual_seed(seed)
    dense = es.model("espalier:digits_cnn")
    train(dense, task, 12, 0.1)
    graph = es.trace(dense, task.example())
    batches = [batch for batch, _ in zip(task.train, range(8), strict=False)]
    scores = es.criteria.taylor(dense, graph, batches=batches, loss=task.loss)
    small = es.cut(dense, graph, es.plan(graph, scores, es.Budget(macs=macs), strategy="isomorphic"))
    reestimate_batch_norm(small, batches)
    networks = {"dense": dense, "cut": small}
    for name, objective in ARMS.items():
        task.train.epoch = 100  # every arm sees the same batches
        networks[name] = train(copy.deepcopy(small), task, epochs, 0.02, objective, dense)
    if split == "test":
        return task.test_once(networks)
    return {name: task.evaluate(network, task.validation) for name, network in networks.items()}


def train(
    model: nn.Module, task: Task, epochs: int, lr: float, objective: Objective | None = None, teacher: Any = None
) -> nn.Module:
    """Train ``model`` in place with SGD under a one-cycle schedule, with ``teacher`` if there is an objective."""

    def plain(inputs: Tensor, outputs: Any, targets: Tensor, loss: Tensor) -> Tensor:
        return loss

    context = nullcontext(plain) if objective is None else objective.attached(teacher, model, example=task.example())
    with context as found:
        term: Callable[..., Tensor] = found
        parameters = [*model.parameters(), *(term.parameters() if isinstance(term, nn.Module) else ())]
        optimizer = torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        steps = epochs * len(task.train)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1, cycle_momentum=False)
        for _ in range(epochs):
            model.train()
            for inputs, targets in task.train:
                outputs = model(inputs)
                loss = term(inputs, outputs, targets, task.loss(outputs, targets))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                cycle.step()
    return model.eval()


if __name__ == "__main__":
    main()
