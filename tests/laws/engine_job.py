"""What every rank of ``test_engines`` does, as a program: ``engine_job.py FOLDER ENGINE [KILL_AT]``."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

import espalier as es
from espalier import engines
from espalier.recipes import Distill, Finetune, Measure, Prune, Recipe, Train, Training
from espalier.recipes.folders.checkpoints import Checkpoints
from espalier.recipes.stages.planning import scores
from espalier.recipes.training.state import State
from espalier.tasks import Loader, Task, load_task

RECIPE = Recipe(
    steps=(
        Train(epochs=3, lr=0.1, ema_decay=0.9),
        Prune(macs=0.5, finetune=Training(epochs=1, lr=0.05), criterion="taylor", score_batches=3),
        Finetune(epochs=1, optimizer="adamw", lr=1e-3, accumulate_steps=2, clip_norm=1.0),
        Distill(epochs=1, lr=0.02, features="attention"),
        Measure(latency=False),
    ),
    checkpoint_seconds=0,
)


class Network(nn.Module):
    """Convolutions, blocks, batch norm and dropout: everything that keeps state, draws, or is sharded on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.blocks = nn.Sequential(self.block(12, 15), self.block(15, 20))
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(20, 10)

    @staticmethod
    def block(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.blocks(torch.relu(self.stem(x))).mean((2, 3))))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Network()


def digits() -> Task:
    """Return batches that two ranks cannot halve; not augmented, which every rank does by draws of its own."""
    task = load_task("digits", batch_size=63)
    assert isinstance(task.train, Loader)
    return replace(task, train=replace(task.train, augment=None))


def scored(engine: Any) -> dict[str, list[float]]:
    """Score from batches that all ranks share."""
    task, model = digits(), network().eval()
    recipe = SimpleNamespace(seed=0)
    work: Any = SimpleNamespace(task=task, part=task.sharded(engine.rank, engine.ranks), engine=engine, recipe=recipe)
    graph = es.trace(model, task.example())
    found = scores(Prune(macs=0.5, score_batches=3), work, State(model), graph)
    return {name: one.tolist() for name, one in found.items()}


def killed(rank: int, at: int) -> Any:
    """Kill this rank after a number of checkpoints."""
    real, count = Checkpoints.save_partial, 0

    def save_partial(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == at and rank == 1 and not engines.restarted():
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args)

    return patch.object(Checkpoints, "save_partial", save_partial)


def main() -> None:
    """Score, run the recipe, and write down what this rank has come to."""
    folder, name, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    engine: Any = engines.current(name)  # type: ignore[arg-type]
    said: dict[str, Any] = {"scores": scored(engine)}
    with killed(engine.rank, int(rest[0]) if rest else -1):
        recipe = RECIPE.model_copy(update={"engine": name})
        result = es.compress(network(), digits(), recipe, folder=Path(folder) / "run")
    model: Any = result.model
    said["surgery"] = model.espalier_surgery.to_data()
    said["weights"] = {key: value.tolist() for key, value in model.state_dict().items()}
    said["accuracy"] = [epoch.accuracy for epoch in result.run.history]
    said["answers"] = model.eval()(digits().example(4)).tolist()
    (Path(folder) / f"{engine.rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
    engines.leave(0)
