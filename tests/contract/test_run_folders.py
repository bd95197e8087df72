"""Which folder is a run's, and whether its process is there."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import espalier as es
from espalier.core import FileError
from espalier.recipes import Distill, Prune, Recipe, named, run
from espalier.recipes.folders import owner
from espalier.recipes.folders.folder import read_run
from espalier.recipes.folders.located import located
from espalier.recipes.folders.owner import Owner, status_of
from espalier.tasks import load_task

from .test_runs import RUN, said, written

STEPS = (Prune(macs=0.5, criterion="magnitude"),)
GOING = dataclasses.replace(RUN, name="going", status="running")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("nowhere", "nowhere is not a run folder: .* There is no such folder; espalier runs lists"),
        ("runs", "It holds runs: espalier runs --out runs lists them; the last is runs/second"),
        ("first", "Did you mean runs/first?"),
        ("recipe.toml", "It looks like a recipe: espalier run recipe.toml"),
        ("small.safetensors", "It looks like a file of weights: espalier compress MODEL --weights small.safetensors"),
        ("timm:resnet18", "It looks like a model: espalier compress timm:resnet18 --data SOURCE"),
        ("net.py:build", "It looks like a model: espalier compress net.py:build --data SOURCE"),
        ("empty", "with run.json in it$"),
    ],
)
def test_what_is_no_run_folder_is_told_what_it_is(
    said: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        written(Path("runs"), dataclasses.replace(RUN, name=name))
    Path("recipe.toml").touch()
    Path("empty").mkdir()
    for action in (located, es.resume):
        with pytest.raises(FileError, match=message):
            action(said)


def test_a_file_in_a_run_folder_means_the_folder(tmp_path: Path) -> None:
    folder = written(tmp_path, RUN)
    assert located(folder) == located(folder / "run.json") == folder


def test_a_status_is_what_was_written_unless_it_is_running(tmp_path: Path) -> None:
    folder = written(tmp_path, GOING)
    assert status_of(folder, "finished") == "finished"
    assert status_of(folder, "running") == "unknown"  # by whom is not written down
    (folder / ".process").write_text("{")
    assert status_of(folder, "running") == "unknown"


def test_a_process_at_work_is_seen_and_no_other_may_join_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path, GOING)
    mine = Owner(folder)
    mine.begin()
    assert status_of(folder, "running") == "running"
    monkeypatch.setattr(owner, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(FileError, match=rf"process {os.getpid()} on .* is at work on this run"):
        Owner(folder).begin()
    assert status_of(folder, "running") == "running"
    mine.end()
    assert not (folder / ".process").exists()


def test_a_run_holds_its_folder_from_its_beginning_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = tmp_path / "run", []

    def go(*_: object) -> None:
        seen.append(status_of(folder, "running"))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_go", go)
    with pytest.raises(KeyboardInterrupt):
        run.run_recipe(es.model("espalier:digits_cnn"), es.load_task("digits"), Recipe(steps=STEPS), folder=folder)
    assert seen == ["running"] and not (folder / ".process").exists()
    (folder / "checkpoints").mkdir()
    (folder / "run.json").write_text(GOING.to_json())
    with pytest.raises(KeyboardInterrupt):
        run.resume(folder, es.model("espalier:digits_cnn"), es.load_task("digits"))
    assert seen == ["running", "running"]


def test_what_another_machine_does_is_not_known(tmp_path: Path) -> None:
    folder = written(tmp_path, GOING)
    mine = Owner(folder)
    mine.begin()
    record = json.loads((folder / ".process").read_text())
    (folder / ".process").write_text(json.dumps({**record, "host": "elsewhere"}))
    assert status_of(folder, "running") == "unknown"
    mine.end()


KILLED = """
import os, signal, sys
from pathlib import Path
from espalier.recipes.folders.owner import Owner
Owner(Path(sys.argv[1])).begin()
if not os.fork():      # a worker that outlives its parent
    print(os.getpid(), flush=True)
    signal.pause()
signal.pause()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_killed_run_is_listed_as_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path, GOING)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        assert status_of(folder, "running") == "running"
        process.kill()
        process.wait()
        assert status_of(folder, "running") == "stopped"
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()
    out = said(capsys, "runs", "--out", str(tmp_path))
    assert "│ stopped" in out and f"going was stopped: espalier resume {folder}" in out
    assert json.loads(said(capsys, "runs", "--out", str(tmp_path), "--json"))[0]["status"] == "stopped"
    assert "│ stopped" in said(capsys, "runs", "going", "--out", str(tmp_path))
    assert read_run(folder).status == "running"  # what is listed changes nothing


def test_a_recipe_in_a_run_folder_names_its_files_by_whole_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ucf").mkdir()
    steps = (*STEPS, Distill(epochs=1, teachers=("other.safetensors",)))
    recipe = Recipe(steps=steps, model="net.py:build", weights="dense.safetensors", data="own.py:data")
    whole = named.absolute(recipe)
    assert (whole.model, whole.data) == (f"{tmp_path}/net.py:build", f"{tmp_path}/own.py:data")
    assert whole.weights == f"{tmp_path}/dense.safetensors"
    assert isinstance(whole.steps[-1], Distill) and whole.steps[-1].teachers == (f"{tmp_path}/other.safetensors",)
    for data, expected in (
        ("ucf101:ucf#2", f"ucf101:{tmp_path}/ucf#2"),
        ("hmdb51:ucf", f"hmdb51:{tmp_path}/ucf"),
        ("own.py", f"{tmp_path}/own.py"),
        ("digits", "digits"),
    ):
        assert named.absolute(recipe.model_copy(update={"data": data})).data == expected
    assert named.absolute(whole) == whole


def test_a_run_that_cuts_nothing_proves_nothing(tmp_path: Path) -> None:
    task = load_task("digits")
    model = es.model("espalier:digits_cnn")
    result = es.compress(model, task, Recipe(steps=(Prune(macs=10**9, criterion="magnitude"),)))
    assert result.run.proof == ""
    assert any("nothing is cut" in note for note in result.run.notes)
