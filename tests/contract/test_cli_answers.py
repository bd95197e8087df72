"""What commands answer: one JSON document for a machine, tables for a person, few lines in a log."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path

import pytest

from espalier.backends.registry import RUNNERS
from espalier.cli import main, options
from espalier.recipes import Settings, progress
from espalier.recipes.folders.folder import read_run

QUICK = ["--epochs", "1", "--score-batches", "1", "--batch-size", "128", "--criterion", "magnitude"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that has finished."""
    root = tmp_path_factory.mktemp("runs")
    line = ["compress", "espalier:digits_cnn", "--data", "digits", "--macs", "0.5", "--out", str(root)]
    assert run(*line, *QUICK) == 0
    (found,) = root.glob("*/run.json")
    return found.parent


def test_every_setting_is_an_option_once() -> None:
    parts = {field.name: field for field in fields(options.Compress)}
    names = [one.name for part in ("budget", "choice", "training") for one in fields(parts[part].default_factory)]
    assert sorted(names) == sorted(Settings.model_fields)
    chosen = options.Compress(model="m", data="d", budget=options._Budget(macs=0.5))
    assert chosen.settings() == Settings(macs=0.5)


def test_compress_answers_one_json_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(tmp_path, "loud.py").write_text(
        "from torch import nn\n\ndef net():\n    print('loud')\n    return nn.Sequential("
        "nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))\n"
    )
    line = ["compress", f"{tmp_path}/loud.py:net", "--data", "digits", "--macs", "0.5", "--out", str(tmp_path / "runs")]
    assert run(*line, *QUICK, "--json") == 0
    out, error = capsys.readouterr()
    data = json.loads(out)
    assert set(data) == {"folder", "report", "ratios", "run"} and data["run"]["status"] == "finished"
    assert data["ratios"]["macs"] <= 0.5 and Path(data["report"]).exists()
    assert "loud" in error and "run folder" in error


def test_report_and_runs_answer_with_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("report", str(folder), "--json") == 0
    expected = json.loads(read_run(folder).to_json())
    assert json.loads(capsys.readouterr().out) == {"report": str(folder / "report.html"), "run": expected}
    assert run("runs", "--out", str(folder.parent), "--json") == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line["name"] == folder.name and line["macs_ratio"] <= 0.5
    assert run("runs", folder.name, "--out", str(folder.parent)) == 0
    assert "macs after" in capsys.readouterr().out


def test_bench_times_a_run_and_says_which_backend_is_missing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Absent:
        name = "openvino"

        def unavailable(self) -> str:
            return "install it first"

    monkeypatch.setitem(RUNNERS, "openvino", Absent())
    line = ["bench", str(folder), "--backends", "eager", "openvino", "--rounds", "5", "--threads", "1"]
    assert run(*line, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    eager, openvino = data["backends"]
    low, middle, high = eager["ratio"]
    assert eager["before_ms"] > 0 and 0 < low <= middle <= high and eager["version"].startswith("torch ")
    assert openvino["ratio"] is None and "install it first" in openvino["reason"]
    assert data["macs_ratio"] <= 0.5 and (data["threads"], data["rounds"], data["batch"]) == (1, 5, 1)
    assert run(*line) == 0
    out = capsys.readouterr().out
    assert "eager" in out and "openvino: not timed" in out and "1 thread, batch 1, 5 rounds in turns" in out


def test_bench_cuts_a_model_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "espalier:digits_cnn", "--macs", "0.3", "--backends", "eager", "--rounds", "5", "--batch", "3"]
    assert run(*line, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert 0.28 < data["macs_ratio"] <= 0.3 and data["batch"] == 3 and data["backends"][0]["ratio"]


def test_a_run_without_a_result_cannot_be_benched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "recipe.toml"):
        (tmp_path / name).write_text((folder / name).read_text())
    for command in ("bench", "encode"):
        assert run(command, str(tmp_path)) == 2
        error = capsys.readouterr().err
        assert f"model.safetensors is missing: espalier run {tmp_path}/recipe.toml makes it again" in error
    old = json.loads((folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**old, "status": "interrupted"}))
    assert run("bench", str(tmp_path)) == 2
    assert f"has saved no result: espalier resume {tmp_path}" in capsys.readouterr().err


def test_export_writes_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", str(folder), "--to", "pt2", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    path = folder / "model.pt2"
    assert data["file"] == str(path) and data["bytes"] == path.stat().st_size and data["max_difference"] < 1e-4
    other = folder / "other.pt2"
    assert run("export", str(folder), "--to", "pt2", "--out", str(other)) == 0
    assert capsys.readouterr().out.startswith(f"{other}\n") and other.exists()


def test_a_log_gets_few_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "watched", lambda: False)
    clock = iter(range(0, 100_000, 25))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with caplog.at_level(logging.INFO, logger="espalier"), progress.bar("fine-tuning", 10) as advance:
        for epoch in range(5):
            advance(f"epoch {epoch + 1}")
    # 25 seconds a step: a line after 75 seconds, and one at the end
    assert caplog.messages == ["fine-tuning: 3 of 10, about 175 s left, epoch 3", "fine-tuning: 150 s, epoch 5"]
    caplog.clear()
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0.0)
    with caplog.at_level(logging.INFO, logger="espalier"), progress.bar("cutting"):
        pass
    assert caplog.messages == []


@pytest.mark.slow
def test_export_and_bench_in_int8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["export", str(folder), "--to", "onnx", "--int8", "--samples", "32", "--least-sqnr-db"]
    assert run(*line, "5", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["int8"] and data["bytes"] == (folder / "model-int8.onnx").stat().st_size and data["sqnr_db"] > 5
    assert run(*line, "90", "--out", str(folder / "near.onnx")) == 2
    assert "loses most" in capsys.readouterr().err and not (folder / "near.onnx").exists()
    names = ("onnxruntime", "onnxruntime-int8")
    assert run("bench", str(folder), "--backends", *names, "--rounds", "3", "--threads", "1", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    plain, int8 = data["backends"]
    assert plain["speedup_before"] == [1.0, 1.0, 1.0] and int8["speedup_after"][1] > 0
    assert any(name.startswith("QLinear") for name in int8["kernels"]) and isinstance(data["instructions"], list)
