"""A run that is stopped at any moment goes on, and its weights end bit by bit as they would have."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import EspalierError, FileError, atomic
from espalier.graph.recording.running import fixed_threads
from espalier.recipes import Finetune, Measure, Prune, Recipe, Train, Training
from espalier.recipes.folders import checkpoints
from espalier.recipes.folders.folder import read_run
from espalier.recipes.folders.owner import status_of
from espalier.recipes.run import interrupted
from espalier.tasks import Task

from .stopped_runs import Killed, Network, Writes, assert_same, network, record

SHORT = Training(epochs=1, lr=0.05)


RECIPE = Recipe(
    steps=(
        Train(epochs=2, lr=0.1, ema_decay=0.9, channels_last=True),
        Prune(macs=0.4, rounds=2, finetune=SHORT, criterion="taylor", score_batches=2),
        Finetune(epochs=2, optimizer="adamw", lr=1e-3, accumulate_steps=2, clip_norm=1.0),
        Measure(latency=False),
    ),
    batch_size=256,
    checkpoint_seconds=0,
)


SEARCH = Recipe(
    steps=(Train(epochs=2), Prune(max_drop=15.0, finetune=SHORT, max_rounds=4, step_ratio=0.4), Measure(latency=False)),
    batch_size=256,
    checkpoint_seconds=0,
)


def slow(value: object):
    """Mark a parameter as slow: it runs in CI."""
    return pytest.param(value, marks=pytest.mark.slow)


WRITES: dict[Path, int] = {}


@pytest.fixture(scope="module", params=["budget", "search"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPE if request.param == "budget" else SEARCH


@pytest.fixture(scope="module")
def whole(recipe: Recipe, digits: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped; WRITES keeps how many files got their names in it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch, at=-1, error=Killed())
        es.compress(network(), digits, recipe, folder=folder)
    WRITES[folder] = writes.count
    return folder


def test_the_same_run_ends_the_same(recipe: Recipe, whole: Path, digits: Task, tmp_path: Path) -> None:
    torch.manual_seed(99)  # the caller's random numbers do not matter
    es.compress(network(), digits, recipe, folder=tmp_path / "again")
    assert_same(whole, tmp_path / "again")
    assert record(whole) == record(tmp_path / "again")
    assert not (whole / "checkpoints").exists()


@pytest.mark.parametrize("share", [0.47, slow(0.02), slow(0.3), slow(0.62), slow(0.8), slow(0.97)])
@pytest.mark.parametrize("after", [False, slow(True)])
def test_stopped_at_a_write_a_run_goes_on(
    share: float,
    after: bool,
    recipe: Recipe,
    whole: Path,
    digits: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        Writes(patch, at=max(6, int(share * WRITES[whole])), error=Killed(), after=after)
        with pytest.raises(Killed):
            es.compress(network(), digits, recipe, folder=folder)
    torch.manual_seed(5)
    es.resume(folder, Network(), digits)  # the weights of this one do not matter
    assert_same(whole, folder)
    assert record(whole) == record(folder)
    assert read_run(folder).resumes == 1


@pytest.mark.parametrize("at", [12, 41, slow(30), slow(60), slow(90)])
def test_a_full_disk_stops_the_run_with_its_last_checkpoint_whole(
    at: int, whole: Path, recipe: Recipe, digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        real, count = os.fsync, 0

        def full(handle: int) -> None:
            nonlocal count
            count += 1
            if count >= at:  # and stays full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(FileError, match="No space left") as stopped:
            es.compress(network(), digits, recipe, folder=folder)
    assert str(folder) in str(stopped.value)
    assert not list(folder.rglob("*.tmp"))
    es.resume(folder, network(), digits)
    assert_same(whole, folder)


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before_it(digits: Task, tmp_path: Path) -> None:
    wild = Recipe(
        steps=(Train(epochs=3, lr=1e12, schedule="constant", warmup_ratio=0), Prune(macs=0.5)),
        batch_size=256,
        checkpoint_seconds=0,
    )
    with pytest.raises(EspalierError, match=r"training: the loss became (nan|inf).*learning rate"):
        es.compress(network(), digits, wild, folder=tmp_path / "run")
    files = [p for p in (tmp_path / "run" / "checkpoints").glob("*.safetensors") if "training" not in p.name]
    assert files
    for file in files:
        model = es.load(file, network())
        assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_what_cannot_be_resumed_says_why(whole: Path, digits: Task, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(FileError, match="nothing to resume"):
        es.resume(whole, network(), digits)
    with pytest.raises(FileError, match="is not a run folder"):
        es.resume(tmp_path, network(), digits)
    folder = tmp_path / "run"
    Writes(monkeypatch, at=30, error=Killed())
    with pytest.raises(Killed):
        es.compress(network(), digits, RECIPE, folder=folder)
    with pytest.raises(EspalierError, match="names no model"):
        es.resume(folder, task=digits)
    with pytest.raises(FileError, match="does not fit"):
        es.resume(folder, nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), digits)
    progress = folder / "checkpoints" / "progress.json"
    record = checkpoints._opened(progress.read_text())
    record["stages"][0]["key"] = "begin"
    progress.write_text(checkpoints._sealed(record))
    with pytest.raises(FileError, match="another recipe or version"):
        es.resume(folder, network(), digits)
    progress.write_text(progress.read_text().replace('"found"', '"lost"', 1))
    with pytest.raises(FileError, match="does not match its SHA-256"):
        es.resume(folder, network(), digits)
    progress.write_text("{")
    with pytest.raises(FileError, match="damaged"):
        es.resume(folder, network(), digits)


def test_a_run_goes_on_with_as_many_threads_as_it_began(digits: Task, tmp_path: Path, monkeypatch) -> None:
    folder, before = tmp_path / "run", torch.get_num_threads()
    Writes(monkeypatch, at=20, error=Killed())
    with fixed_threads(before + 1), pytest.raises(Killed):
        es.compress(network(), digits, RECIPE, folder=folder)
    monkeypatch.undo()
    es.resume(folder, network(), digits)
    assert read_run(folder).environment["threads"] == str(before + 1) and torch.get_num_threads() == before


def test_a_damaged_neighbour_is_not_the_run_to_go_on_with(tmp_path: Path) -> None:
    neighbour = tmp_path / "other"
    (neighbour / "checkpoints").mkdir(parents=True)
    (neighbour / "run.json").write_text("{")
    (neighbour / "recipe.toml").write_text("a = [")
    assert interrupted(tmp_path, RECIPE) is None


COMMAND = [sys.executable, "-c", "from espalier.cli import main; main()"]


TOML = """
model = "espalier:digits_cnn"
data = "digits"
batch_size = 256
checkpoint_seconds = 0

[[steps]]
kind = "train"
epochs = 3
channels_last = true

[[steps]]
kind = "prune"
macs = 0.4
rounds = 2
[steps.finetune]
epochs = 1

[[steps]]
kind = "finetune"
epochs = 3
ema_decay = 0.9

[[steps]]
kind = "measure"
latency = false
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_at_ten_random_moments_a_run_ends_bit_by_bit_the_same(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text(TOML)
    environment = {**os.environ, "PYTHONPATH": str(Path(es.__file__).parents[1]), "CI": "1"}

    def command(*words: str) -> list[str]:
        return [*COMMAND, *words]

    start = command("run", "short.toml", "--out", "whole")
    subprocess.run(start, cwd=tmp_path, env=environment, check=True, capture_output=True)
    chance = random.Random()  # truly at random: any moment must do
    words = command("run", "short.toml", "--out", "killed")
    kills = 0
    while True:
        process = subprocess.Popen(
            words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        if kills < 10 and survived(process, tmp_path / "killed", chance):
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, error = process.communicate(timeout=300)
        (folder,) = (path.parent for path in (tmp_path / "killed").glob("*/recipe.toml"))
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, error.decode()
            break
        assert status_of(folder, "running") == "stopped"
        words = command("resume", str(folder))
    assert kills == 10
    (other,) = (path.parent for path in (tmp_path / "whole").glob("*/recipe.toml"))
    assert_same(other, folder)
    assert record(other)["path"] == record(folder)["path"]
    assert read_run(folder).resumes == 10


def survived(process: subprocess.Popen, root: Path, chance: random.Random) -> bool:
    """Wait until the process has written a random number of checkpoints, and a moment more; False when it ended."""
    wanted, seen, last = chance.randint(1, 4), 0, written(root)
    while process.poll() is None and seen < wanted:
        now = written(root)
        seen += now != last
        last = now
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))
    return process.poll() is None


def written(root: Path) -> list[int]:
    """Return when the last checkpoint was written, as far as there is one."""
    found = []
    for path in root.glob("*/checkpoints/progress.json"):
        with contextlib.suppress(FileNotFoundError):  # the run ended meanwhile
            found.append(path.stat().st_mtime_ns)
    return found
