"""What every rank of ``test_clusters_engines`` does, as a program: ``clusters_job.py FOLDER ENGINE [KILL_AT]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

import espalier as es
from espalier import engines
from espalier.graph.sharing import sharing_of
from espalier.recipes import Cluster, Encode, Finetune, Measure, Recipe, Sparsify, Training

from .engine_job import digits, killed, network

SHORT = Training(epochs=1, lr=0.003)
STEPS: dict[str, Any] = {
    "fsdp": (Sparsify(sparsity=0.5), Cluster(bits=3, finetune=SHORT), Finetune(epochs=1, lr=0.003, ema_decay=0.9)),
    "ddp": (Cluster(bits=3, rate=5.0, finetune=Training(epochs=2, lr=0.02)), Finetune(epochs=1, lr=0.003)),
}


def main() -> None:
    """Run the recipe, and write down what this rank has come to."""
    folder, name, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    engine: Any = engines.current(name)  # type: ignore[arg-type]
    steps = (*STEPS[name], Encode(), Measure(latency=False))
    recipe = Recipe(steps=steps, engine=name, checkpoint_seconds=0)  # type: ignore[arg-type]
    with killed(engine.rank, int(rest[0]) if rest else -1):
        result = es.compress(network(), digits(), recipe, folder=Path(folder) / "run")
    said = {
        "weights": {key: value.tolist() for key, value in result.model.state_dict().items()},
        "symbols": {key: symbols.tolist() for key, symbols in sharing_of(result.model).symbols.items()},
        "accuracy": [epoch.accuracy for epoch in result.run.history],
    }
    (Path(folder) / f"{engine.rank}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
    engines.leave(0)
