"""A process of a group is gone before Python takes the interpreter down, with its exit code and all it has said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import espalier

PROGRAM = """
import atexit, sys
from espalier.engines import leave
class Late:
    def __del__(self): print("taken down")
late = Late()
atexit.register(print, "registered")
print("said", end=" ")
leave(3)
"""
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("environment", "said"), [(TORCHRUN, "said registered\n"), ({}, "said registered\ntaken down\n")]
)
def test_the_interpreter_is_taken_down_only_outside_a_group(environment: dict[str, str], said: str) -> None:
    base = {key: value for key, value in os.environ.items() if key not in TORCHRUN}
    source = str(Path(espalier.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**base, "PYTHONPATH": source, **environment},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, said, "")
