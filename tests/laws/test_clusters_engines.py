"""Clusters over several processes: equal on every rank, one number from shards too, after a kill as without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from espalier.recipes.folders.folder import read_run

from . import clusters_job as job
from .test_engines import torchrun

pytestmark = pytest.mark.slow
KILL_AT = 9  # checkpoints written before it


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_clusters_are_one_number_on_every_rank_and_after_a_kill(engine: str, tmp_path: Path) -> None:
    torchrun(tmp_path / "whole", engine, job=job)
    first, second = (json.loads((tmp_path / "whole" / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and first["symbols"]
    for name, symbols in first["symbols"].items():
        weight, own = torch.tensor(first["weights"][name]), torch.tensor(symbols)
        assert all(len(weight[own == one].unique()) == 1 for one in own.unique().tolist())
        assert not weight[own == 0].any() and weight[own != 0].any()
    torchrun(tmp_path / "killed", engine, str(KILL_AT), restarts=1, job=job)
    assert read_run(tmp_path / "killed" / "run").resumes == 1
    one, other = (load_file(tmp_path / name / "run" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
