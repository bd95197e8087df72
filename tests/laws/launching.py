"""Programs that run as ranks of a group: all of them started, waited for, and none left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import espalier as es

from .ranks_job import PATIENCE_SECONDS, WORLD


def every_rank(command: Sequence[str]) -> None:
    """Run a command once a rank, with the rank as its last word; each must end well."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{Path(es.__file__).parents[1]}:{root}", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank)], cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(WORLD)
    ]
    try:
        words = [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()  # a rank that was left waiting
    assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(words)[-4000:]
