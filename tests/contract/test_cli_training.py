"""The recipe behind the commands: what a run leaves, and what it refuses."""

from __future__ import annotations

import math
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import Cost, FileError, ModelError
from espalier.core.run import Run
from espalier.recipes import Prune, RecipeError, Train
from espalier.recipes.folders.folder import Journal, create_folder, new_folder, read_run
from espalier.recipes.settings import Settings
from espalier.recipes.stages.prune import round_budget
from espalier.recipes.untrained import untrained_note
from espalier.tasks import Task, load_task


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


def network(outputs: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, outputs))


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": math.nan}, {"label_smoothing": 1.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Settings(macs=0.5, **wrong).recipe()


@pytest.mark.parametrize("capable", [True, False])
def test_training_is_in_bfloat16_where_the_processor_computes_in_it(capable: bool, monkeypatch) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": capable, "sse2": True})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    steps = Settings(macs=0.5, train_epochs=1, rounds=2).recipe().steps
    assert isinstance(steps[0], Train) and isinstance(steps[1], Prune)
    for one in (steps[0], steps[1].finetune, steps[2]):
        assert (one.precision, one.channels_last) == (("bfloat16", True) if capable else ("float32", False))
    asked = Settings(macs=0.5, precision="float32", channels_last=True).recipe().steps[-1]
    assert (asked.precision, asked.channels_last) == ("float32", True)


def test_rounds_go_equal_factors_of_the_way_or_on_a_cubic() -> None:
    cost = Cost(macs=8000, params=100, activations=10)
    steps = Prune(macs=0.5, rounds=3)
    assert round_budget(steps, (cost, cost), {"macs": 1000}, 1).macs in (3999, 4000)
    assert round_budget(steps, (cost, cost), {"macs": 1000, "params": 20}, 3).params == 20
    assert round_budget(steps, (cost, cost), {"params": 200}, 2).params == 100
    cubic = Prune(macs=0.5, rounds=2, schedule="cubic")
    assert round_budget(cubic, (cost, cost), {"macs": 1000}, 1).macs == 1000 + 7000 // 8
    assert round_budget(cubic, (cost, cost), {"macs": 1000}, 2).macs == 1000


def test_compress_leaves_the_model_alone_and_writes_nothing_unasked(digits: Task) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = Settings(macs=0.5, epochs=1, train_epochs=1, rounds=2, batch_size=128)
    result = es.compress(model, digits, settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert type(result.model) is type(model) and result.run.status == "finished" and not result.run.files
    assert [epoch.epoch for epoch in result.run.history] == [1, 2, 3, 4]
    (width,) = result.run.widths
    assert result.model[1].out_features == width.after == 16 and width.before == 32
    assert result.comparison.after.accuracy is not None and result.run.model == "Sequential"


def test_a_model_with_too_few_outputs_is_refused_before_any_work(digits: Task, tmp_path) -> None:
    with pytest.raises(ModelError, match="10 classes"):
        es.compress(network(7), digits, Settings(macs=0.5), folder=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_never_writes_over_another(digits: Task, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(FileError, match=r"run exists already, .* give a new name"):
        es.compress(network(), digits, Settings(macs=0.5), folder=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_validation_split_that_says_nothing_is_a_warning_of_its_own(digits: Task) -> None:
    few = [(x[:8], y[:8]) for x, y in [next(iter(digits.validation))]]
    assert "has 8 examples of" in untrained_note(network(), replace(digits, validation=few))
    alone = [(x, torch.zeros_like(y)) for x, y in digits.validation]
    assert "of 1 classes" in untrained_note(network(), replace(digits, validation=alone))


def test_an_untrained_network_is_noted_and_logged_and_a_trained_one_is_not(digits: Task, caplog) -> None:
    note = untrained_note(network(), digits)
    assert all(word in note for word in ("untrained", "--weights", "--pretrained", "--train-epochs"))
    assert caplog.messages == [f"warning: {note}"]
    result = es.compress(network(), digits, Settings(macs=0.5, epochs=0))
    assert "untrained" in result.run.notes[0] and len(caplog.messages) == 2
    result = es.compress(network(), digits, Settings(macs=0.5, epochs=0, train_epochs=6, batch_size=128))
    assert not result.run.notes and len(caplog.messages) == 2
    assert "still looks untrained after its training" in untrained_note(network(), digits, trained=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not whole JSON"),
        ("[]", "no JSON object"),
        ('{"espalier_run": 9}', "version 9"),
        ('{"espalier_run": 2}', "the field 'data' of Run is missing"),
        ('{"espalier_run": 2, "name": 3, "model": "", "data": ""}', "3 is not"),
    ],
)
def test_a_damaged_run_is_named_by_its_file(tmp_path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(FileError, match=f"^{re.escape(str(tmp_path / 'run.json'))}: .*{message}"):
        read_run(tmp_path)


def test_folder_names_are_safe_and_new(tmp_path) -> None:
    first = new_folder(tmp_path, "../../etc/my model.py:f")
    assert first.parent == tmp_path and "/" not in first.name and not first.name.startswith(".")
    first.mkdir()
    assert new_folder(tmp_path, "../../etc/my model.py:f") != first


def test_a_run_folder_has_the_name_that_it_is_given(tmp_path) -> None:
    assert new_folder(tmp_path, "resnet", "third-try") == tmp_path / "third-try"
    (tmp_path / "third-try").mkdir()
    with pytest.raises(FileError, match="third-try exists"):
        new_folder(tmp_path, "resnet", "third-try")
    for name in ("", "..", "a/b", ".hidden", "-x", "a b"):
        with pytest.raises(FileError, match="cannot be named"):
            new_folder(tmp_path, "resnet", name)


@pytest.mark.parametrize(
    ("raised", "status"), [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (ValueError("why"), "failed")]
)
def test_the_journal_records_how_a_run_ended(tmp_path, raised: BaseException | None, status: str) -> None:
    folder = tmp_path / "run"
    create_folder(folder)
    expected = nullcontext() if raised is None else pytest.raises(type(raised))
    with expected, Journal(Run(name="run", model="m", data="d"), folder) as journal:
        assert read_run(folder).status == "running"
        journal.write("plan.json", "{}")
        if raised is not None:
            raise raised
    found = read_run(folder)
    assert found.status == status and found.finished and found.files == {"plan.json": 2}
    assert found.notes == (("ValueError: why",) if status == "failed" else ())
    assert {path.name for path in folder.iterdir()} == {"run.json", "plan.json"}
