"""The step that sets weights to zero: they stay exactly zero whatever trains or cuts, and after a kill too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import EspalierError, UnknownNameError
from espalier.core.run import Run
from espalier.graph.masks import masks_of
from espalier.recipes import Finetune, Measure, Prune, Recipe, RecipeError, Recover, Sparsify, Train, Training, parse
from espalier.recipes.steps import Distill
from espalier.recipes.training.state import State, read_state, write_state
from espalier.report import render
from espalier.tasks import Task

from .lessons import images
from .masked import hidden, sparse
from .stopped_runs import Killed, Network, Writes, assert_same, network, record

SHORT = Training(epochs=1, lr=0.05)


def test_a_state_brings_its_masks_through_a_file(tmp_path: Path) -> None:
    model = sparse()
    with torch.no_grad():
        kept = masks_of(model).kept["3.weight"].nonzero()[0]
        model.get_parameter("3.weight")[tuple(kept)] = 0.0  # a weight that is left may be zero, and may grow again
    data = write_state(tmp_path, "x", State(model))
    back, extra = read_state(tmp_path, json.loads(json.dumps(data)), images())
    assert not extra
    assert all(torch.equal(masks_of(back.model).kept[name], mask) for name, mask in masks_of(model).kept.items())


ONE_SHOT = (
    Sparsify(sparsity=0.6, scope="global", keep=("head",), finetune=SHORT),
    Prune(macs=0.5, criterion="magnitude", recover=("least_squares",), recover_batches=2),
    Finetune(epochs=1, lr=0.02, ema_decay=0.9),
)
ROUNDS = (
    Sparsify(layers={"b": 0.8}, sparsity=0.5, schedule="iterative", rounds=2, finetune=SHORT),
    Distill(epochs=1, lr=0.02, optimizer="adamw"),
)
GRADUAL = (
    Sparsify(sparsity=0.8, schedule="gradual", every_steps=2, finetune=Training(epochs=2, lr=0.05, ema_decay=0.9)),
    Recover(how=("batch_norm",), batches=2),
    Prune(macs=0.6, rounds=2, finetune=SHORT, criterion="taylor", score_batches=1),
)


def recipe(steps: tuple[Any, ...]) -> Recipe:
    return Recipe(steps=(Train(epochs=1, lr=0.1), *steps, Measure(latency=False)), batch_size=256, checkpoint_seconds=0)


def slow(value: Any) -> Any:
    """Mark a parameter as slow: it runs in CI."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=["one_shot", slow("rounds"), "gradual"])
def steps(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    return {"one_shot": ONE_SHOT, "rounds": ROUNDS, "gradual": GRADUAL}[request.param]


@pytest.fixture(scope="module")
def whole(
    steps: tuple[Any, ...], digits: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, nn.Module]:
    folder = tmp_path_factory.mktemp("sparse") / "run"
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch, at=-1, error=Killed())
        small = es.compress(network(), digits, recipe(steps), folder=folder).model
    return folder, writes.count, small


def test_what_was_asked_for_is_zero_at_the_end(steps: tuple[Any, ...], whole: tuple[Path, int, nn.Module]) -> None:
    folder, _, small = whole
    run = Run.from_json((folder / "run.json").read_text())
    masks = masks_of(small)
    assert all(not values.any() for values in hidden(small).values())
    assert {one.name: (one.weights, one.kept) for one in run.densities} == {
        name: (mask.numel(), int(mask.sum())) for name, mask in masks.kept.items()
    }
    loaded = es.load(folder / "model.safetensors", Network())
    for name, mask in masks.kept.items():
        assert not loaded.get_parameter(name).detach()[~mask].any() and mask.shape == loaded.get_parameter(name).shape
    if steps is ONE_SHOT:
        assert masks.kept.keys() == {"a.weight", "b.weight"} and any("masked layers" in note for note in run.notes)
    elif steps is ROUNDS:
        assert 1 - masks.kept["b.weight"].float().mean() == pytest.approx(0.8, abs=1e-3)
        assert masks.density == pytest.approx(
            sum(one.kept for one in run.densities) / sum(o.weights for o in run.densities)
        )
        first, second = (point for point in run.path if point.kind == "cut")
        assert first.stage == "sparsified 1 of 2" and second.macs == first.macs == run.path[0].macs
    else:
        assert 0.7 < 1 - masks.density < 0.9  # a cut after it takes what it takes


def test_the_size_is_what_the_file_has_and_the_report_says_so(whole: tuple[Path, int, nn.Module]) -> None:
    folder, _, small = whole
    run = Run.from_json((folder / "run.json").read_text())
    stored = sum(tensor.numel() * tensor.element_size() for tensor in small.state_dict().values())
    assert run.after.size_bytes == stored and (folder / "model.safetensors").stat().st_size > stored
    page = render(run)
    assert "What became zero" in page and "holds a zero as any number" in page


@pytest.mark.parametrize("share", [0.55, slow(0.3), slow(0.8)])
def test_a_killed_run_goes_on_bit_by_bit(
    share: float,
    steps: tuple[Any, ...],
    whole: tuple[Path, int, nn.Module],
    digits: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        Writes(patch, at=max(6, int(share * whole[1])), error=Killed())
        with pytest.raises(Killed):
            es.compress(network(), digits, recipe(steps), folder=folder)
    small = es.resume(folder, Network(), digits).model
    assert_same(whole[0], folder)
    assert record(whole[0]) == record(folder)
    densities = [json.loads((one / "run.json").read_text())["densities"] for one in (whole[0], folder)]
    assert densities[0] == densities[1]
    assert all(torch.equal(mask, masks_of(small).kept[name]) for name, mask in masks_of(whole[2]).kept.items())


def test_a_model_that_is_masked_already_stays_so(digits: Task) -> None:
    small = es.compress(
        sparse(), digits, Recipe(steps=(Prune(macs=0.6), Finetune(epochs=1), Measure(latency=False)))
    ).model
    assert len(hidden(small)) == 3 and all(len(values) and not values.any() for values in hidden(small).values())


def test_least_squares_leaves_masked_layers_as_they_are() -> None:
    dense = es.sparsify(images().eval(), 0.5, keep=("6",))
    graph = es.trace(dense, torch.rand(2, 1, 8, 8))
    plan = es.plan(graph, es.criteria.magnitude(dense, graph), es.Budget(macs=0.5))
    small = es.cut(dense, graph, plan)
    batches = [(torch.rand(16, 1, 8, 8), torch.zeros(16)) for _ in range(4)]
    lines = {line.weight: line for line in es.recovery.least_squares(dense, small, graph, plan, batches)}
    assert all(not values.any() for values in hidden(small).values())
    assert "it is masked" in lines["3.weight"].reason and lines["6.weight"].ridge is not None


def test_a_layer_without_weights_is_told_of(digits: Task) -> None:
    model = images()
    with torch.no_grad():
        model.get_parameter("6.weight").mul_(1e-6)
    steps = (Sparsify(sparsity=0.9, scope="global"), Measure(latency=False))
    run = es.compress(model, digits, Recipe(steps=steps)).run
    assert any("6.weight: no weight is left" in note for note in run.notes)


def test_a_pattern_that_matches_nothing_is_refused_before_any_work(digits: Task, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        es.compress(images(), digits, Recipe(steps=(Sparsify(layers={"9.weight": 0.5}),)), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


WRONG = """
[[steps]]
kind = "sparsify"
sparsty = 0.5
sparsity = 1.5
layers = {fc = 2.0}
scope = "layers"
"""


def test_every_mistake_is_told_at_once_with_the_nearest_key() -> None:
    with pytest.raises(RecipeError) as error:
        parse(WRONG)
    text = str(error.value)
    for words in (
        "unknown key 'sparsty'; did you mean 'sparsity'?",
        "sparsity: input should be less than 1",
        "layers",
        "scope",
    ):
        assert words in text, text
    assert len(text.splitlines()) == 4
    with pytest.raises(RecipeError, match="unknown kind of step 'sparsfy'; did you mean 'sparsify'"):
        parse('[[steps]]\nkind = "sparsfy"')


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing becomes zero"),
        ({"layers": {"a": 0.5}, "scope": "global"}, "scope = 'global'"),
        ({"sparsity": 0.5, "rounds": 3, "every_steps": 5}, "rounds is for schedule = 'iterative'.*every_steps is for"),
        ({"sparsity": 0.5, "schedule": "iterative", "rounds": 3}, "finetune with at least one epoch"),
        ({"sparsity": 0.5, "schedule": "gradual"}, "masks while the network is trained"),
        ({"sparsity": 0.5, "schedule": "gradual", "finetune": SHORT, "begin_ratio": 0.9}, "begin_ratio lies before"),
        ({"sparsity": 0.5, "schedule": "gradual", "finetune": SHORT, "ranking": "random"}, "is by magnitude"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(EspalierError, match=words):
        Sparsify(**given)
