"""Masks over several processes: equal on every rank, exact zeros from shards too, and a killed rank changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from espalier.recipes.folders.folder import read_run

from . import masks_job as job
from .test_engines import torchrun

pytestmark = pytest.mark.slow
KILL_AT = 9  # checkpoints written before it


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_masked_weights_are_zero_on_every_rank_and_after_a_kill(engine: str, tmp_path: Path) -> None:
    torchrun(tmp_path / "whole", engine, job=job)
    first, second = (json.loads((tmp_path / "whole" / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and len(first["kept"]) == (3 if engine == "fsdp" else 4)
    for name, kept in first["kept"].items():
        weight, mask = torch.tensor(first["weights"][name]), torch.tensor(kept)
        assert not weight[~mask].any() and weight[mask].any() and not mask.all()
    torchrun(tmp_path / "killed", engine, str(KILL_AT), restarts=1, job=job)
    assert read_run(tmp_path / "killed" / "run").resumes == 1
    one, other = (load_file(tmp_path / name / "run" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
