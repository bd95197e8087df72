"""The training loop and the recipe behind the commands."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
import torch
from torch import nn

from espalier.core import Cost, FileError, ModelError
from espalier.core.run import Epoch, Run
from espalier.recipes import compress as recipe
from espalier.recipes.finetune import TrainingError, finetune, new_optimizer, schedule
from espalier.recipes.folder import Journal, new_folder, read_run
from espalier.recipes.settings import Settings, SettingsError, Training
from espalier.recipes.untrained import untrained_note
from espalier.tasks import Task, load_task

ONE = Training(epochs=1, lr=0.05)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


def network(outputs: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, outputs))


def fresh(task: Task) -> Task:
    """Return the task with its training order back at the start."""
    return dataclasses.replace(task, train=dataclasses.replace(task.train, epoch=0))


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    values = [schedule(i / 100) for i in range(1, 101)]
    assert values[0] == pytest.approx(0.1) and values[9] == pytest.approx(1.0) and values[-1] == pytest.approx(0.0)
    assert values[:10] == sorted(values[:10]) and values[10:] == sorted(values[10:], reverse=True)


def test_training_learns_and_repeats_itself(digits: Task) -> None:
    runs = []
    for _ in range(2):
        model, epochs = network(), []
        finetune(model, fresh(digits), Training(epochs=8, lr=0.05), stage="x", on_epoch=epochs.append)
        runs.append([(epoch.loss, epoch.accuracy) for epoch in epochs])
    assert runs[0] == runs[1] and len(runs[0]) == 8
    assert runs[0][-1][1] > 0.8 and runs[0][-1][0] < runs[0][0][0]
    assert not model.training and [epoch.epoch for epoch in epochs] == list(range(1, 9)) and epochs[0].stage == "x"


def test_training_leaves_the_callers_random_numbers_alone(digits: Task) -> None:
    model = network()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    finetune(model, digits, ONE)
    assert torch.equal(torch.rand(3), expected)


def test_a_given_optimizer_goes_on_with_its_moments(digits: Task) -> None:
    model = network()
    optimizer = finetune(model, digits, ONE)
    before = optimizer.state[model[1].weight]["momentum_buffer"].clone()
    again = finetune(model, digits, ONE, optimizer=optimizer)
    assert again is optimizer and not torch.equal(before, optimizer.state[model[1].weight]["momentum_buffer"])
    assert isinstance(finetune(model, digits, dataclasses.replace(ONE, optimizer="adamw", lr=1e-3)), torch.optim.AdamW)


def test_only_matrices_decay_and_frozen_parameters_stay(digits: Task) -> None:
    model = network()
    model[1].weight.requires_grad_(False)
    before = model[1].weight.clone()
    groups = new_optimizer(model, ONE).param_groups
    assert [(len(group["params"]), group["weight_decay"] > 0) for group in groups] == [(1, True), (2, False)]
    finetune(model, digits, ONE)
    assert torch.equal(before, model[1].weight)


def test_smoothing_changes_the_loss(digits: Task) -> None:
    losses = []
    for smoothing in (0.0, 0.5):
        epochs: list[Epoch] = []
        settings = dataclasses.replace(ONE, label_smoothing=smoothing, epochs=6)
        finetune(network(), fresh(digits), settings, on_epoch=epochs.append)
        losses.append(epochs[-1].loss)
    assert losses[1] > losses[0] + 0.3


def test_what_cannot_train_gets_one_error(digits: Task) -> None:
    with pytest.raises(TrainingError, match="learning rate"):
        finetune(network(), digits, Training(epochs=9, lr=1e12))
    with pytest.raises(TrainingError, match="no trainable"):
        finetune(network().requires_grad_(False), digits, ONE)
    with pytest.raises(TrainingError, match="no batch"):
        empty = dataclasses.replace(digits.train, targets=digits.train.targets[:0])
        finetune(network(), dataclasses.replace(digits, train=empty), ONE)


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"batch_size": 1}, {"lr": 0.0}, {"lr": math.nan}, {"label_smoothing": 1.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Settings(macs=0.5, **wrong)


def test_rounds_go_equal_factors_of_the_way() -> None:
    cost = Cost(macs=8000, params=100, activations=10)
    assert recipe._step_budget(cost, {"macs": 1000}, 3).macs in (3999, 4000)
    assert recipe._step_budget(cost, {"macs": 1000, "params": 200}, 1).params == 200
    assert recipe._step_budget(cost, {"params": 200}, 2).params == 100


def test_compress_leaves_the_model_alone_and_writes_nothing_unasked(digits: Task) -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = Settings(macs=0.5, epochs=1, train_epochs=1, rounds=2, batch_size=128)
    result = recipe.compress(model, digits, settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert type(result.model) is type(model) and result.run.status == "finished" and not result.run.files
    assert [epoch.epoch for epoch in result.run.history] == [1, 2, 3]
    (width,) = result.run.widths
    assert result.model[1].out_features == width.after == 16 and width.before == 32
    assert result.comparison.after.accuracy is not None and result.run.model == "Sequential"


def test_a_model_with_too_few_outputs_is_refused_before_any_work(digits: Task, tmp_path) -> None:
    with pytest.raises(ModelError, match="10 classes"):
        recipe.compress(network(7), digits, Settings(macs=0.5), folder=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_run_never_writes_over_another(digits: Task, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(FileError, match=r"run exists already, .* give a new name"):
        recipe.compress(network(), digits, Settings(macs=0.5), folder=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_an_untrained_network_is_noted_and_logged_and_a_trained_one_is_not(digits: Task, caplog) -> None:
    note = untrained_note(network(), digits)
    assert all(word in note for word in ("untrained", "--weights", "--pretrained", "--train-epochs"))
    assert caplog.messages == [f"warning: {note}"]
    model = network()
    finetune(model, digits, dataclasses.replace(ONE, epochs=6))
    assert untrained_note(model, digits) == "" and len(caplog.messages) == 1
    result = recipe.compress(network(), digits, Settings(macs=0.5, epochs=0))
    assert "untrained" in result.run.notes[0] and len(caplog.messages) == 2
    result = recipe.compress(network(), digits, Settings(macs=0.5, epochs=0, train_epochs=6, batch_size=128))
    assert not result.run.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not whole JSON"),
        ("[]", "no JSON object"),
        ('{"espalier_run": 9}', "version 9"),
        ('{"espalier_run": 1}', "the field 'data' of Run is missing"),
        ('{"espalier_run": 1, "name": 3, "model": "", "data": ""}', "3 is not"),
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


@pytest.mark.parametrize(
    ("raised", "status"), [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (ValueError("why"), "failed")]
)
def test_the_journal_records_how_a_run_ended(tmp_path, raised: BaseException | None, status: str) -> None:
    folder = tmp_path / "run"
    try:
        with Journal(Run(name="run", model="m", data="d"), folder) as journal:
            assert read_run(folder).status == "running"
            journal.write("plan.json", "{}")
            if raised is not None:
                raise raised
    except (KeyboardInterrupt, ValueError):
        pass
    found = read_run(folder)
    assert found.status == status and found.finished and found.files == {"plan.json": 2}
    assert found.notes == (("ValueError: why",) if status == "failed" else ())
    assert {path.name for path in folder.iterdir()} == {"run.json", "plan.json"}
