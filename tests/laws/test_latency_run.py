"""A run with a budget in milliseconds, to its end and over a crash: what was measured is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import espalier as es
from espalier import backends
from espalier.core.run import Run
from espalier.measure import Trials
from espalier.recipes import Finetune, Measure, Prune, Recipe
from espalier.recipes.folders.folder import read_run
from espalier.recipes.stages import latency, prune
from espalier.tasks import Task

from .stopped_runs import Killed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["eager", "onnxruntime"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    reason = backends.registry.BACKENDS[request.param].unavailable()
    if reason:
        pytest.skip(reason)
    asked = Prune(latency_ratio=0.8, backend=request.param, latency_batch=32, criterion="magnitude")
    measured = Measure(backend=request.param, rounds=5)
    return Recipe(steps=(asked, Finetune(epochs=1), measured), batch_size=256, checkpoint_seconds=0)


def network() -> nn.Module:
    return es.model("espalier:digits_cnn")


@contextmanager
def killed() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        yield patch


def stop(*_: Any, **__: Any) -> None:
    raise Killed


def forbid(patch: pytest.MonkeyPatch, *names: str) -> None:
    def measured_again(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    for name in names:
        patch.setattr(latency, name, measured_again)


def written(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "latency-trials.json").read_text())["trials"]


def work_of(folder: Path) -> Any:
    """Return as much of a run under way as says where its folder is."""
    return SimpleNamespace(journal=SimpleNamespace(folder=folder))


def finished(folder: Path) -> Run:
    """Return the run, which ended well and timed its result as its budget was."""
    run = read_run(folder)
    assert run.status == "finished" and run.resumes == 1 and (folder / "model.safetensors").exists()
    step = Recipe.model_validate(es.recipes.read(folder / "recipe.toml")).steps[0]
    assert isinstance(step, Prune)
    (timed,) = run.latencies
    assert timed.target_ms is not None and timed.conditions.startswith(step.backend)
    assert "32 inputs at once" in timed.conditions
    return run


def test_a_search_measures_its_last_budget_whole(recipe: Recipe, digits: Task, tmp_path: Path) -> None:
    prune_step, _, measured = recipe.steps
    searched = prune_step.model_copy(update={"max_drop": 90.0})
    steps = (searched, measured)
    es.compress(network(), digits, Recipe(steps=steps, batch_size=256), folder=tmp_path / "run")
    assert written(tmp_path / "run")
    assert any("interleaved rounds" in note for note in read_run(tmp_path / "run").notes)


def test_killed_with_its_plan_made_a_run_cuts_by_that_plan(recipe: Recipe, digits: Task, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with killed() as patch:
        patch.setattr(prune, "cut", stop)
        es.compress(network(), digits, recipe, folder=folder)
    stages = json.loads((folder / "checkpoints" / "progress.json").read_text())["stages"]
    (planned,) = [stage["found"]["plan"] for stage in stages if stage["key"].endswith("/plan")]
    tables = (folder / "latency-tables.json").read_text()
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch, "latency_tables", "meet")
        es.resume(folder, network(), digits)
    run = finished(folder)
    assert json.loads((folder / "plan.json").read_text())["keep"] == json.loads(planned)["keep"]
    assert {w.group: w.after for w in run.widths if w.after < w.before} == {
        group: len(units) for group, units in json.loads(planned)["keep"].items()
    }
    assert (folder / "latency-tables.json").read_text() == tables


def test_killed_between_trials_a_run_goes_on_from_those_that_it_made(
    recipe: Recipe, digits: Task, tmp_path: Path
) -> None:
    folder, real, known = tmp_path / "run", latency.meet, []

    def meet(*given: Any, trials: Trials, **named: Any) -> Any:
        def write(trial: Any) -> None:
            trials.write(trial)
            raise Killed

        return real(*given, trials=Trials(trials.known, write), **named)

    def spied(*given: Any, trials: Trials, **named: Any) -> Any:
        known.extend(trials.known)
        return real(*given, trials=trials, **named)

    with killed() as patch:
        patch.setattr(latency, "meet", meet)
        es.compress(network(), digits, recipe, folder=folder)
    (made,) = written(folder)
    tables = (folder / "latency-tables.json").read_text()
    with pytest.MonkeyPatch.context() as patch:
        forbid(patch, "latency_tables")
        patch.setattr(latency, "meet", spied)
        es.resume(folder, network(), digits)
    finished(folder)
    assert [trial.to_data() for trial in known] == [made]
    assert written(folder)[0] == made  # still there, for a second crash
    assert latency._known("1-prune/cut-1", work_of(folder)) and not latency._known("2-prune/cut-1", work_of(folder))
    assert (folder / "latency-tables.json").read_text() == tables
