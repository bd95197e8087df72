"""Law: ranks that each see a part of every batch score as one process that sees it whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import espalier as es
from espalier import criteria

from .criteria_job import scores
from .ranks_job import PATIENCE_SECONDS, WORLD


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each rank of a group says."""
    folder = tmp_path_factory.mktemp("ranks")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{Path(es.__file__).parents[1]}:{root}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.laws.criteria_job", str(folder)]
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
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.slow
def test_ranks_score_as_one(said: list[dict[str, dict[str, Tensor]]]) -> None:
    whole = scores(slice(None))
    assert set(whole) == criteria.DATA_DRIVEN
    for one in said:
        for criterion, expected in whole.items():
            for name, numbers in expected.items():  # type: ignore[union-attr]
                torch.testing.assert_close(
                    one[criterion][name], numbers, rtol=1e-6, atol=1e-9, msg=f"{criterion} {name}"
                )
