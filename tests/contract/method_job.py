"""What every rank of ``test_methods`` does, as a program: ``method_job.py FOLDER``: each method, on shared batches."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

import espalier as es
from espalier import engines
from espalier.methods import registry
from espalier.recipes import Binarize, Measure, Prune, Recipe, Training
from espalier.tasks import Loader, load_task

from ..laws.stopped_runs import network


def recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe that takes a moment: half of the MACs, two short epochs."""
    training = Training(epochs=2, lr=0.05, schedule="constant", **changes)
    prune = Prune(method=name, macs=0.5, finetune=training)
    return Recipe(steps=(prune, Measure(latency=False)), batch_size=128, checkpoint_seconds=0, seed=4)


BINARY = get_args(Binarize.model_fields["method"].annotation)


def binary(name: str) -> Recipe:
    """Return a recipe that binarises, drawing weights where the method can."""
    options = {"drawn": "stochastic"} if name == "binary_connect" else {}
    step = Binarize(method=name, options=options, finetune=Training(epochs=2, lr=0.01))
    return Recipe(steps=(step, Measure(latency=False)), batch_size=128, seed=4)


def main() -> None:
    """Run every method, and write down what this rank has come to."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    rank = engines.current("auto").rank
    task = load_task("digits", batch_size=127)
    assert isinstance(task.train, Loader)
    task = replace(task, train=replace(task.train, augment=None))
    said: dict[str, Any] = {}
    for name in (*registry.names(), *BINARY):
        wanted = binary(name) if name in BINARY else recipe(name)
        result: Any = es.compress(network(), task, wanted, folder=folder / name)
        weights = {key: value.tolist() for key, value in result.model.state_dict().items()}
        surgery = getattr(result.model, "espalier_surgery", None)
        said[name] = {"surgery": surgery and surgery.to_data(), "weights": weights}
    (folder / f"{rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
    os._exit(0)  # gloo, as it goes, sometimes ends a process by std::terminate: what is tested is over by then
