"""What every rank of ``test_masks_engines`` does, as a program: ``masks_job.py FOLDER ENGINE [KILL_AT]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import espalier as es
from espalier import engines
from espalier.graph.masks import masks_of
from espalier.recipes import Finetune, Measure, Recipe, Sparsify, Training

from .engine_job import digits, killed, network

SHORT = Training(epochs=1, lr=0.1, ema_decay=0.9)
STEPS: dict[str, Any] = {
    "fsdp": (Sparsify(sparsity=0.6, scope="global", keep=("head",)), Finetune(epochs=2, lr=0.1, ema_decay=0.9)),
    "ddp": (Sparsify(sparsity=0.6, schedule="gradual", every_steps=4, finetune=SHORT), Finetune(epochs=1, lr=0.05)),
}


def main() -> None:
    """Run the recipe, and write down what this rank has come to."""
    folder, name, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    engine: Any = engines.current(name)  # type: ignore[arg-type]
    recipe = Recipe(steps=(*STEPS[name], Measure(latency=False)), engine=name, checkpoint_seconds=0)  # type: ignore[arg-type]
    with killed(engine.rank, int(rest[0]) if rest else -1):
        result = es.compress(network(), digits(), recipe, folder=Path(folder) / "run")
    said = {
        "weights": {key: value.tolist() for key, value in result.model.state_dict().items()},
        "kept": {key: mask.tolist() for key, mask in masks_of(result.model).kept.items()},
        "accuracy": [epoch.accuracy for epoch in result.run.history],
    }
    (Path(folder) / f"{engine.rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
    engines.leave(0)
