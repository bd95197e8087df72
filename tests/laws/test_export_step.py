"""Laws of the step Export: a recipe's result in another format, noted, resumed, and refused before any training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import espalier as es
from espalier.backends import ExportError, onnx_file
from espalier.core.run import Exported, Run
from espalier.recipes import Export, Measure, Prune, Recipe, RecipeError, Save, files
from espalier.report import render


def recipe(*exports: Export) -> Recipe:
    return Recipe(steps=(Prune(macs=0.5, criterion="magnitude"), Save(), Measure(latency=False), *exports))


def test_a_run_exports_its_result(tmp_path: Path) -> None:
    torch.manual_seed(0)
    asked = recipe(Export(), Export(int8=True, samples=16, least_sqnr_db=10))
    assert files.parse(files.to_toml(asked), ".toml") == asked
    folder = tmp_path / "run"
    run = es.compress(es.model("espalier:digits_cnn"), es.load_task("digits"), asked, folder=folder).run
    plain, small = run.exports
    assert (plain.file, plain.int8, small.file, small.int8) == ("model.onnx", False, "model-int8.onnx", True)
    for one in run.exports:
        assert one.bytes == run.files[one.file] == (folder / one.file).stat().st_size
    assert small.bytes < plain.bytes and small.sqnr_db is not None and small.sqnr_db < (plain.sqnr_db or 999)
    assert Run.from_json((folder / "run.json").read_text()).exports == run.exports
    page = render(run)
    assert "In other formats" in page and "model-int8.onnx" in page


def test_what_is_not_installed_shows_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"export to openvino in int8 cannot be done: .*espalier\[openvino\]"):
        es.compress(es.model("espalier:digits_cnn"), es.load_task("digits"), recipe(Export(to="openvino", int8=True)))


def test_only_files_follow_a_measure() -> None:
    with pytest.raises(RecipeError, match="measure comes before the end"):
        Recipe(steps=(Measure(), Export(), Prune(macs=0.5)))
    kinds = [step.kind for step in Recipe(steps=(Prune(macs=0.5), Export())).whole().steps]
    assert kinds == ["prune", "export", "save", "measure"]


def test_the_record_survives_json() -> None:
    run = Run(name="r", model="m", data="d", exports=(Exported(file="a", int8=True, bytes=3, max_difference=0.0),))
    assert Run.from_json(run.to_json()) == run and json.loads(run.to_json())["exports"][0]["sqnr_db"] is None
