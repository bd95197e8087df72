"""The ledger of runs, and whose run folders may bring code along."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest

import espalier as es
from espalier.cli import main
from espalier.core import EspalierError, FileError
from espalier.core.run import Measures, Run
from espalier.recipes import Prune, Recipe, files
from espalier.recipes.folders import ledger, origin
from espalier.recipes.folders.folder import RECIPE

RUN = Run(
    name="first",
    model="espalier:digits_cnn",
    data="digits",
    status="finished",
    started="2026-01-01T00:00:00+00:00",
    before=Measures(macs=100, params=10, accuracy=0.9),
    after=Measures(macs=50, params=4, accuracy=0.85),
    settings={"step 1": "prune macs=0.5", "seed": "0"},
)


def written(root: Path, run: Run) -> Path:
    folder = root / run.name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(run.to_json())
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    found = capsys.readouterr()
    assert not stop.value.code, found.err
    return found.out


def test_the_ledger_follows_the_folders(tmp_path: Path) -> None:
    written(tmp_path, RUN)
    (line,) = ledger.sync(tmp_path)
    assert (line.name, line.macs_ratio, line.params_ratio, line.accuracy_after) == ("first", 0.5, 0.4, 0.85)
    written(tmp_path, dataclasses.replace(RUN, name="second", status="running", started="2026-01-02", after=Measures()))
    assert [(one.name, one.macs_ratio) for one in ledger.sync(tmp_path)] == [("first", 0.5), ("second", None)]
    (tmp_path / "second" / "run.json").unlink()
    assert [one.name for one in ledger.sync(tmp_path)] == ["first"]
    with sqlite3.connect(tmp_path / "ledger.sqlite") as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    file.close()


def test_equal_work_has_equal_keys_and_other_work_has_others() -> None:
    one, other = ledger.line_of(RUN, "a", 0.0), ledger.line_of(dataclasses.replace(RUN, name="z"), "b", 1.0)
    assert one.key == other.key
    assert ledger.line_of(dataclasses.replace(RUN, recipe="seed = 1"), "a", 0.0).key != one.key


def test_a_damaged_run_or_ledger_hinders_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, RUN)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    assert [line.name for line in ledger.sync(tmp_path)] == ["first"]
    assert "left out" in caplog.text
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(FileError, match="may be deleted"):
        ledger.sync(tmp_path)
    ledger.record(tmp_path)
    assert "the ledger was not written" in caplog.text
    with pytest.raises(FileError, match="no such folder"):
        ledger.sync(tmp_path / "nowhere")


def test_a_list_of_runs_is_narrow_and_has_whole_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "timm-vit_base_patch16_224-20260101-093000"
    written(tmp_path, dataclasses.replace(RUN, name=name, data="imagefolder:/a/rather/long/path/to/a/folder/of/images"))
    out = said(capsys, "runs", "--out", str(tmp_path))
    assert name in out and "90.00 \N{RIGHTWARDS ARROW} 85.00" in out and "\N{HORIZONTAL ELLIPSIS}" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_runs_are_listed_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, RUN)
    settings = {**RUN.settings, "step 1": "prune macs=0.3"}
    written(tmp_path, dataclasses.replace(RUN, name="second", settings=settings, after=Measures(macs=30, accuracy=0.8)))
    out = said(capsys, "runs", "--out", str(tmp_path))
    assert "first" in out and "second" in out and "0.500" in out and "85.00" in out
    out = said(capsys, "runs", "first", "second", "--out", str(tmp_path))
    assert "prune macs=0.5" in out and "prune macs=0.3" in out and "0.8500" in out
    assert "│ seed" not in out  # what is the same tells nothing
    out = said(capsys, "runs", str(tmp_path / "first"), "second", "--out", str(tmp_path))
    assert "prune macs=0.5" in out and "prune macs=0.3" in out
    (tmp_path / "empty").mkdir()
    assert f"no runs in {tmp_path / 'empty'}" in said(capsys, "runs", "--out", str(tmp_path / "empty")).replace(
        "\n", ""
    )
    listed = json.loads(said(capsys, "runs", "--out", str(tmp_path), "--json"))
    assert [one["name"] for one in listed] == ["first", "second"]
    with pytest.raises(SystemExit) as stop:
        main(["runs", "frist", "--out", str(tmp_path)])
    assert stop.value.code == 2 and "Did you mean 'first'" in capsys.readouterr().err


USER = """
from torch import nn
print("imported")
def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder that names code, with a key of this user's beside it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "user.py").write_text(USER)
    folder = written(tmp_path / "runs", RUN)
    recipe = Recipe(model=f"{tmp_path}/user.py:net", data="digits", steps=(Prune(macs=0.5),))
    files.write(recipe, folder / RECIPE)
    return folder


def test_a_seal_is_this_users_and_this_recipes(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not origin.is_ours(foreign)
    origin.seal(foreign)
    assert origin.is_ours(foreign)
    key = next((tmp_path / "state").rglob("*.key"))
    assert key.stat().st_mode & 0o077 == 0
    recipe = (foreign / RECIPE).read_text()
    (foreign / RECIPE).write_text(recipe.replace("user.py", "evil.py"))
    assert not origin.is_ours(foreign)
    (foreign / RECIPE).write_text(recipe)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert not origin.is_ours(foreign)
    (foreign / ".seal").write_bytes(b"\xff\xfe")
    assert not origin.is_ours(foreign)


def test_code_of_a_foreign_folder_is_not_run_unasked(foreign: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileError, match=r"was not written here.*--trust"):
        es.resume(foreign)
    with pytest.raises(SystemExit) as stop:
        main(["resume", str(foreign)])
    found = capfd.readouterr()
    assert stop.value.code == 2 and "user.py:net" in found.err and "imported" not in found.out
    for trusted in (True, False):  # by word, and then by the seal
        if not trusted:
            origin.seal(foreign)
        with pytest.raises(EspalierError, match="nothing to resume"):
            es.resume(foreign, trusted=trusted)
        assert "imported" in capfd.readouterr().out
