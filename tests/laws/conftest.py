"""What many laws are tried on: fixed random numbers, a task, and a small network with the file of its cut."""

from pathlib import Path

import pytest
import torch

from espalier.graph import files
from espalier.graph.surgery.operate import operate
from espalier.tasks import Task, load_task

from .model_files import Tied, surgery


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=256)


@pytest.fixture
def dense() -> Tied:
    torch.manual_seed(0)
    return Tied().eval()


@pytest.fixture
def saved(dense: Tied, tmp_path: Path) -> Path:
    files.save(operate(dense, surgery((1, 2, 5))), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"
