"""A study of a small network on the digits, whose jobs take moments; and drivers of it in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

NETWORK = """
from torch import nn

def net(classes):
    hidden = nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(16, classes))
"""

DRIVER = """
import sys
from pathlib import Path
from espalier.studies.files import read
from espalier.studies.run import run

if __name__ == "__main__":
    run(read(sys.argv[1]), Path(sys.argv[2]))
"""


def data(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a study's data; its network is written into ``folder``."""
    (folder / "net.py").write_text(NETWORK)
    cut = {"kind": "prune", "strategy": "uniform", "score_batches": 1}
    train = {"kind": "finetune", "epochs": 1, "lr": 0.05}
    subject = {
        "name": "digits",
        "model": f"{folder}/net.py:net",
        "data": "digits",
        "batch_size": 256,
        "train": {"epochs": 2, "lr": 0.1},
    }
    return {
        "name": "small",
        "criteria": ["magnitude", "taylor"],
        "ratios": [0.5],
        "tasks": [subject],
        "arms": [
            {"name": "baseline", "steps": [cut, {**train}]},
            {"name": "mended", "steps": [{**cut, "recover": ["least_squares"], "recover_batches": 2}, train]},
        ],
        **changes,
    }
