"""``espalier study``: the whole way on the command line, again for nothing, and what it says when something fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w

from espalier.cli import main

from ..laws.studies import data


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_a_study_from_its_file_to_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    given = {key: value for key, value in data(tmp_path, criteria=["magnitude"]).items() if key != "name"}
    path.write_text(tomli_w.dumps(given))
    assert run("study", str(path), "--out", str(tmp_path / "studies"), "--json") == 0
    first = json.loads(capsys.readouterr().out)
    folder = tmp_path / "studies" / "mine"
    assert first["computed"] == first["jobs"] == 24 and first["folder"] == str(folder)
    (with_controls,) = (one for one in first["findings"]["numbers"]["comparisons"] if one["controls"])
    assert with_controls["heuristics"] == 3 and with_controls["base"]["value"] >= 0
    assert {path.name for path in folder.iterdir()} >= {"study.toml", "ledger.sqlite", "report.html", "findings.json"}
    page = (folder / "report.html").read_text()
    assert "scratch-B" in page and "reversed:magnitude" in page and "Kendall" in page
    assert json.loads((folder / "findings.json").read_text()) == first["findings"]

    assert run("study", str(path), "--out", str(tmp_path / "studies")) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 of 24 jobs computed") and "reduction" in out
    assert (folder / "report.html").read_text() == page


def test_failures_are_told_and_the_report_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = data(tmp_path, criteria=["magnitude"], seeds=[0])
    (tmp_path / "other.py").write_text("def net(classes):\n    raise OSError('no such network')\n")
    given["tasks"] += [{**given["tasks"][0], "name": "broken", "model": f"{tmp_path}/other.py:net"}]
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(given))
    assert run("study", str(path), "--out", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "12 of 24 jobs failed" in error and "no such network" in error and "tries them again" in error
    assert "no such network" in (tmp_path / "small" / "report.html").read_text()


def test_a_mistake_in_the_file_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(tomli_w.dumps(data(tmp_path, ratio=[0.5])))
    assert run("study", str(path), "--out", str(tmp_path / "studies")) == 2
    assert "did you mean 'ratios'?" in capsys.readouterr().err and not (tmp_path / "studies").exists()
