"""The step that leaves two or three values a weight: from a file, through a kill, to a file of a bit a weight."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import espalier as es
from espalier.core.run import Run
from espalier.graph.grids import Sign, grids_of
from espalier.methods import registry
from espalier.methods.real_weights import Quantizing
from espalier.recipes import Binarize, Measure, Recipe, RecipeError, Train, Training, checked, parse, to_toml
from espalier.report import render
from espalier.tasks import Task, load_task, squared_hinge
from espalier.transforms.packed_layers import Popcount
from espalier.transforms.packed_weights import few_values

from .stopped_runs import Killed, Writes, assert_same, record

METHODS = get_args(Binarize.model_fields["method"].annotation)
SHORT = Training(epochs=2, lr=0.003, optimizer="adamw", weight_decay=0.0)


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


def network(method: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return es.model("espalier:xnor_cnn" if method == "xnor_net" else "espalier:binary_net_mlp_digits")


def recipe(method: str, **changes: Any) -> Recipe:
    step = Binarize(method=method, finetune=SHORT, **changes)
    steps = (Train(epochs=1, lr=0.02), step, Measure(latency=False))
    return Recipe(steps=steps, loss="squared_hinge", batch_size=128, checkpoint_seconds=0)


def few(model: torch.nn.Module) -> list[str]:
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    return [name.removesuffix(".weight") for name, p in weights.items() if few_values(p) is not None]


def test_every_method_of_the_family_has_its_place_in_the_step() -> None:
    own = {name for name in registry.names("quantizing") if issubclass(registry.kind(name), Quantizing)}
    assert own == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_few_values_and_says_so(method: str, digits: Task, tmp_path: Path) -> None:
    result = es.compress(network(method), digits, recipe(method), folder=tmp_path / "run")
    model, run = result.model, Run.from_json((tmp_path / "run" / "run.json").read_text())
    ends = method in ("binary_connect", "binary_net")
    expected = [
        path
        for path, one in model.named_modules()
        if isinstance(one, torch.nn.Linear | torch.nn.Conv2d)
        and (ends or path not in ("linear1", "linear4", "first", "last"))
    ]
    assert few(model) == expected and [one.name for one in run.binarised] == [f"{path}.weight" for path in expected]
    assert {one.values for one in run.binarised} == {3 if method == "trained_ternary" else 2}
    signs = [path for path, made in grids_of(model).inputs.items() if isinstance(made, Sign)]
    reading = [one.name.removesuffix(".weight") for one in run.binarised if one.reads == "signs"]
    assert reading == signs and bool(signs) == (method in ("binary_net", "xnor_net"))
    assert run.path[-1].stage == f"binarised by {method}" and run.history[-1].stage == run.path[-1].stage
    page = render(run)
    assert "What became binary" in page and f"{sum(one.weights for one in run.binarised):,} weights of two or" in page
    # from its file it is the same network, and packed too
    back = es.load(tmp_path / "run" / "model.safetensors", network(method)).eval()
    x = digits.example(4)
    with torch.no_grad():
        small = es.packed(back)
        assert torch.equal(back(x), model(x)) and torch.equal(small(x), model(x))
    assert len([one for one in small.modules() if isinstance(one, Popcount)]) == len(signs)


def test_the_file_takes_a_bit_a_weight(digits: Task, tmp_path: Path) -> None:
    model = es.compress(network("binary_net"), digits, recipe("binary_net")).model
    es.save(model, tmp_path / "model.safetensors")
    es.encode(model, tmp_path / "model.esp")
    back = es.decode(tmp_path / "model.esp", network("binary_net"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True))
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    rest = sum(t.numel() * t.element_size() for t in model.state_dict().values()) - 4 * weights
    assert os.stat(tmp_path / "model.esp").st_size < weights / 8 + rest + 2500  # the header


@pytest.mark.parametrize("method", ["binary_connect", "trained_ternary"])
def test_a_killed_run_ends_the_same(method: str, digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"drawn": "stochastic"} if method == "binary_connect" else {}
    wanted = recipe(method, options=options, distill=method == "trained_ternary")
    with monkeypatch.context() as patch:
        writes = Writes(patch, at=-1, error=Killed())
        es.compress(network(method), digits, wanted, folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        Writes(patch, at=round(0.6 * writes.count), error=Killed())
        with pytest.raises(Killed):
            es.compress(network(method), digits, wanted, folder=tmp_path / "run")
    es.resume(tmp_path / "run", network(method), digits)
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert record(tmp_path / "whole") == record(tmp_path / "run")


@pytest.mark.parametrize("method", METHODS)
def test_the_step_survives_a_file(method: str) -> None:
    wanted = recipe(method, keep=("linear4",), only=("linear*",), ends=True, distill=True)
    assert parse(to_toml(wanted)) == wanted
    assert json.loads(wanted.model_dump_json())["steps"][1]["kind"] == "binarize"


TRAINED = {"epochs": 1}
MISTAKES = [
    ({"method": "binaryconnect"}, "'binary_connect'"),
    ({"options": {"draw": "stochastic"}}, "binary_connect has no hyperparameter 'draw'; did you mean 'drawn'?"),
    ({"options": {"lr_scale": 0}}, "lr_scale"),
    ({"options": {"keep": ["head"]}}, "keep: give them to the step, not in options"),
    ({"finetune": {"epochs": 0}}, "give finetune with at least one epoch"),
    ({"finetune": {"epochs": 1, "ema_decay": 0.9}}, "an average of binary weights is not binary"),
    ({"finetune": None}, "finetune"),
]


@pytest.mark.parametrize(("change", "words"), MISTAKES, ids=lambda one: str(one)[:40])
def test_mistakes_are_refused_by_name(change: dict, words: str) -> None:
    step = {"kind": "binarize", "finetune": TRAINED, **change}
    step = {key: value for key, value in step.items() if value is not None}
    with pytest.raises(RecipeError) as caught:
        checked({"steps": [step]})
    assert words in str(caught.value) and "step 1 (binarize)" in str(caught.value)


def test_a_pattern_that_matches_nothing_is_seen_before_any_work(digits: Task) -> None:
    with pytest.raises(es.EspalierError, match="unknown pattern 'liner1'. Did you mean 'linear1'"):
        es.compress(network("binary_net"), digits, recipe("binary_net", keep=("liner1",)))


def test_the_squared_hinge_is_the_tasks_when_a_recipe_asks_for_it(digits: Task) -> None:
    scores = torch.tensor([[2.0, -3.0, 0.5], [0.0, 0.0, 0.0]])
    expected = ((0 + 0 + 1.5**2) + (1 + 1 + 1)) / 6
    assert float(squared_hinge(scores, torch.tensor([0, 2]))) == pytest.approx(expected)
    shares = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(squared_hinge(scores, shares)) == pytest.approx(expected)
    losses = [
        es.compress(network("binary_net"), digits, Recipe(steps=(Train(epochs=1), Measure(latency=False)), loss=loss))
        for loss in ("own", "squared_hinge")
    ]
    own, hinge = (one.run.history[-1].loss for one in losses)
    assert own != hinge
    segments = es.load_task("digits")
    object.__setattr__(segments, "kind", "segmentation")
    with pytest.raises(RecipeError, match="loss = 'squared_hinge' is for classification"):
        es.compress(network("binary_net"), segments, recipe("binary_net"))
