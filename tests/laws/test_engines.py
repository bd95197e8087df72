"""Several processes do what one does: equal plans and weights on every rank, and a killed rank changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import espalier as es
from espalier.engines.engine import Alone
from espalier.recipes.folders.folder import read_run

from . import engine_job as job

PATIENCE_SECONDS = 400
KILL_AT = 40  # checkpoints written before it

pytestmark = pytest.mark.slow


def torchrun(folder: Path, *words: str, restarts: int = 0, job: ModuleType = job) -> None:
    """Run a job in two processes that talk over gloo."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    source = Path(es.__file__).parents[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("TORCHELASTIC")},
        "PYTHONPATH": os.pathsep.join([str(source), str(source.parent)]),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    done = subprocess.run(
        [*command, f"--max-restarts={restarts}", "--module", job.__name__, str(folder), *words],
        env=environment,
        timeout=PATIENCE_SECONDS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an undisturbed run of two processes has been."""
    path = tmp_path_factory.mktemp("engines") / engine
    torchrun(path, engine)
    return path


@pytest.fixture(scope="module")
def said(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_scores_are_those_of_one_process(said: list[dict[str, Any]]) -> None:
    alone = job.scored(Alone(torch.device("cpu")))
    assert said[0]["scores"] == said[1]["scores"]
    for name, expected in alone.items():
        ours, theirs = torch.tensor(said[0]["scores"][name]), torch.tensor(expected)
        assert float((ours - theirs).abs().max() / theirs.abs().max()) <= 1e-6


def test_every_rank_ends_with_the_same_network(said: list[dict[str, Any]]) -> None:
    first, second = said
    assert first["surgery"] == second["surgery"] and first["surgery"]
    assert first["weights"] == second["weights"]
    assert first["accuracy"] == second["accuracy"] and first["accuracy"][-1] > 0.8


def test_the_file_loads_in_one_process(folder: Path, said: list[dict[str, Any]]) -> None:
    small = es.load(folder / "run" / "model.safetensors", job.network()).eval()
    answers = small(job.digits().example(4))
    assert torch.equal(answers, torch.tensor(said[0]["answers"]))
    run = read_run(folder / "run")
    assert run.status == "finished" and run.resumes == 0 and len(run.readings) == 1
    assert not (folder / "run" / "checkpoints").exists()


def test_a_killed_rank_changes_nothing(folder: Path, engine: str, tmp_path: Path) -> None:
    torchrun(tmp_path / "killed", engine, str(KILL_AT), restarts=1)
    assert read_run(tmp_path / "killed" / "run").resumes == 1
    first, second = (load_file(path / "run" / "model.safetensors") for path in (folder, tmp_path / "killed"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
