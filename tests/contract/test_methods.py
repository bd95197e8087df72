"""Every method of the folder: the budget is met, the plan replays, a killed run ends the same, nothing is left."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch.overrides import _get_current_function_mode_stack

import espalier as es
from espalier.core import EspalierError, Plan, UnknownNameError
from espalier.methods import MethodError, Quantizer, registry
from espalier.recipes import Prune, RecipeError, Settings, Training, checked, parse, to_toml
from espalier.recipes.settings import SettingsError
from espalier.tasks import Task, load_task

from ..laws.stopped_runs import Killed, Writes, assert_same, network, record
from ..laws.test_engines import torchrun
from . import method_job as job

METHODS = registry.names()


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


@pytest.fixture(scope="module", params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(name: str, digits: Task, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, es.Graph, int]:
    """A run that nothing stopped, the dense network's graph, and how many files got their names."""
    folder = tmp_path_factory.mktemp(name) / "run"
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch, at=-1, error=Killed())
        es.compress(network(), digits, job.recipe(name), folder=folder)
    return folder, es.trace(network(), digits.example()), writes.count


@pytest.mark.parametrize(("family", "known"), [("pruning", "group_fisher"), ("quantizing", "binary_connect")])
def test_the_folder_is_the_registry(family: registry.Family, known: str) -> None:
    folder, methods = Path(registry.FAMILIES[family].__path__[0]), registry.names(family)
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == set(methods) and known in files
    assert len([name for each in registry.FAMILIES for name in registry.names(each) if name in files]) == len(files)
    for name in methods:
        text = (folder / f"{name}.py").read_text()
        others = [
            other for other in methods if other != name and f"import {other}" in text.replace("from .", "import ")
        ]
        assert not others and "Source:" in text and "Differs:" in text
        assert fields(registry.kind(name)) and registry.kind(name).__doc__


@pytest.mark.parametrize("name", registry.names("quantizing"))
def test_a_quantizer_shows_what_it_quantizes_and_leaves_nothing_open(name: str, digits: Task) -> None:
    from ..laws.lessons import ONE, images, taught

    method, model = registry.made(name, {}), images()
    assert isinstance(method, Quantizer) and registry.made(name, {}) == method
    learner, _ = taught(digits, ONE, model, method=method)
    weights = {key: one for key, one in learner.model.named_parameters() if one.dim() > 1}
    assert any(max(len(row.unique()) for row in one.flatten(1)) <= 16 for one in weights.values())
    assert not learner.model._forward_pre_hooks and all(one.requires_grad for one in weights.values())


def test_the_budget_is_met_and_the_plan_replays(name: str, whole: tuple[Path, es.Graph, int]) -> None:
    folder, graph, _ = whole
    run = json.loads((folder / "run.json").read_text())
    dense = graph.cost()
    assert 0.3 * dense.macs < run["after"]["macs"] <= 0.5 * dense.macs
    plan = Plan.from_json((folder / "plan.json").read_text())
    assert graph.plan_cost(plan).macs == run["after"]["macs"]
    replayed = es.cut(network(), graph, plan)
    small = es.load(folder / "model.safetensors", network())
    assert [p.shape for p in replayed.parameters()] == [p.shape for p in small.parameters()]
    assert "cut equals masked" in run["proof"] and run["path"][-1]["stage"] == f"pruning by {name}"


def test_nothing_stays_open(name: str, digits: Task) -> None:
    before = len(_get_current_function_mode_stack())
    result = es.compress(network(), digits, job.recipe(name))
    assert len(_get_current_function_mode_stack()) == before
    modules = result.model.modules()
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in modules)
    assert all(p.requires_grad and type(p) is torch.nn.Parameter for p in result.model.parameters())


@pytest.mark.parametrize("share", [0.35, pytest.param(0.6, marks=pytest.mark.slow), 0.85])
def test_a_killed_run_ends_the_same(
    share: float,
    name: str,
    whole: tuple[Path, es.Graph, int],
    digits: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _, count = whole
    with monkeypatch.context() as patch:
        Writes(patch, at=max(1, round(share * count)), error=Killed())
        with pytest.raises(Killed):
            es.compress(network(), digits, job.recipe(name), folder=tmp_path / "run")
    es.resume(tmp_path / "run", network(), digits)
    assert_same(folder, tmp_path / "run")
    assert record(folder) == record(tmp_path / "run")


@pytest.mark.slow
def test_ranks_decide_the_same(tmp_path: Path) -> None:
    torchrun(tmp_path / "ranks", job=job)
    first, second = (json.loads((tmp_path / "ranks" / f"{rank}.json").read_text()) for rank in range(2))
    assert set(first) == {*METHODS, *job.BINARY} and first == second
    assert all(first[name]["surgery"] for name in METHODS)


def test_a_method_survives_a_file(name: str) -> None:
    recipe = job.recipe(name)
    assert parse(to_toml(recipe)) == recipe


MISTAKES = [
    ({"method": "group_fishe"}, "unknown method 'group_fishe'; did you mean 'group_fisher'?"),
    ({"options": {"every_step": 3}}, "group_fisher has no hyperparameter 'every_step'; did you mean 'every_steps'?"),
    ({"options": {"every_steps": 0}}, "every_steps: input should be greater than or equal to 1 (it is 0)"),
    ({"options": {"normalise": "memry"}}, "normalise: input should be 'memory', 'macs' or 'none' (it is 'memry')"),
    ({"max_drop": 1.0, "macs": None}, "does not heed max_drop: leave out what it decides itself; group_fisher works"),
    ({"rounds": 3, "recover": ["batch_norm"]}, "does not heed rounds, recover"),
    ({"latency_ms": 3.0}, "does not heed latency_ms"),
    ({"finetune": None}, "group_fisher works while the network is trained: give finetune with at least one epoch"),
    ({"method": None, "options": {"every_steps": 3}}, "these are a method's, and no method is given"),
]


@pytest.mark.parametrize(("change", "words"), MISTAKES, ids=lambda one: str(one)[:40])
def test_mistakes_are_refused_by_name(change: dict, words: str) -> None:
    step = {"kind": "prune", "method": "group_fisher", "macs": 0.5, "finetune": {"epochs": 1}, **change}
    step = {key: value for key, value in step.items() if value is not None}
    with pytest.raises(RecipeError) as caught:
        checked({"steps": [step]})
    assert words in str(caught.value) and "step 1 (prune)" in str(caught.value)


def test_all_mistakes_come_at_once() -> None:
    step = {"kind": "prune", "method": "group_fisher", "macs": 3.0, "options": {"cut": 1, "prune_ratio": 2.0}}
    with pytest.raises(RecipeError) as caught:
        checked({"steps": [step]})
    said = str(caught.value)
    assert all(
        words in said for words in ("with a point it is a share", "no hyperparameter 'cut'", "less than or equal to 1")
    )


def test_settings_name_a_method() -> None:
    options = ("every_steps=10", "normalise=macs")
    (prune, _) = (
        Settings(precision="float32", macs=0.5, method="group_fisher", options=options, round_epochs=2).recipe().steps
    )
    assert prune == Prune(
        method="group_fisher",
        options={"every_steps": 10, "normalise": "macs"},
        macs=0.5,
        finetune=Training(epochs=2),
    )
    with pytest.raises(SettingsError, match="does not heed rounds"):
        Settings(macs=0.5, method="group_fisher", rounds=2).recipe()
    with pytest.raises(SettingsError, match="should be NAME=VALUE"):
        Settings(precision="float32", macs=0.5, method="group_fisher", options=("every_steps",)).recipe()
    with pytest.raises(RecipeError, match="did you mean 'group_fisher'"):
        Settings(macs=0.5, method="groupfisher")


def test_hyperparameters_are_checked_in_python_too() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'group_fisher'"):
        registry.made("group_fishr", {})
    with pytest.raises(MethodError, match="every_steps.*; .*no hyperparameter 'x'"):
        registry.made("group_fisher", {"every_steps": 0, "x": 1})
    assert issubclass(MethodError, EspalierError)


def test_a_method_without_a_goal_says_so(name: str, digits: Task) -> None:
    from ..laws.lessons import ONE, images, taught

    with pytest.raises(MethodError, match="towards a budget or a limit"):
        taught(digits, ONE, images(), method=registry.made(name, {}))
