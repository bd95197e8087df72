"""The step that sets weights to zero: they stay exactly zero whatever trains or cuts, and after a kill too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import EspalierError, UnknownNameError
from espalier.core.run import Run
from espalier.graph.masks import Masks, mask_, masks_of
from espalier.graph.recording.tensors import named_tensors
from espalier.methods import MethodError
from espalier.methods.sparsity.gradual_magnitude import GradualMagnitude
from espalier.recipes import Finetune, Measure, Prune, Recipe, RecipeError, Recover, Sparsify, Train, Training, parse
from espalier.recipes.steps import Distill
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.masking import Masking
from espalier.recipes.training.state import State, read_state, write_state
from espalier.report import render
from espalier.selection.sparsity import Sparsity
from espalier.tasks import Task

from .lessons import images, taught
from .stopped_runs import Killed, Network, Writes, assert_same, network, record

SHORT = Training(epochs=1, lr=0.05)


def sparse(share: float = 0.7) -> nn.Module:
    return es.sparsify(images(), share)


def hidden(model: nn.Module) -> dict[str, Tensor]:
    tensors = named_tensors(model)
    return {name: tensors[name].detach()[~kept] for name, kept in masks_of(model).kept.items()}


def assert_zero(learner: Learner, count: int = 3) -> None:
    """See that what the masks hide is zero in the network, its moments and its average."""
    masks = masks_of(learner.model).kept
    assert len(masks) == count and all(not values.any() for values in hidden(learner.model).values())
    tensors = named_tensors(learner.model)
    moments = 0
    for name, kept in masks.items():
        for value in learner.optimizer.state[tensors[name]].values():
            if isinstance(value, Tensor) and value.shape == kept.shape:
                moments += 1
                assert not value[~kept].any() and value[kept].any()
    assert moments >= count
    if learner.average is not None:
        averaged = named_tensors(learner.average.model)
        assert all(not averaged[name].detach()[~kept].any() and averaged[name].any() for name, kept in masks.items())


@pytest.mark.parametrize(
    "training",
    [
        Training(epochs=2, lr=0.1, momentum=0.9, weight_decay=0.1),
        Training(epochs=2, lr=0.01, optimizer="adamw", weight_decay=0.5),
        Training(epochs=2, lr=0.05, ema_decay=0.9, accumulate_steps=2, clip_norm=0.5, channels_last=True),
    ],
    ids=["momentum", "adamw", "average"],
)
def test_masked_weights_are_zero_after_every_step(training: Training, digits: Task) -> None:
    model = sparse()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)  # as if somebody had filled the zeros meanwhile: training begins with them
    learner, _ = taught(digits, training, model)
    assert_zero(learner)


def test_zeros_hold_between_steps_too(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    forward = nn.Sequential.forward

    def look(self: nn.Sequential, x: Tensor) -> Tensor:
        looks.append(all(not values.any() for values in hidden(self).values()))
        return forward(self, x)

    monkeypatch.setattr(nn.Sequential, "forward", look)
    taught(digits, Training(epochs=1, lr=0.5, momentum=0.9), sparse())
    assert len(looks) > 5 and all(looks)


def test_momentum_of_before_moves_nothing(digits: Task) -> None:
    learner, _ = taught(digits, SHORT, images())
    model, optimizer = learner.model, learner.optimizer
    mask_(model, Masks({"3.weight": torch.rand(8, 8, 3, 3) > 0.5}))
    after = Learner.of(State(model, optimizer), SHORT)
    Masking(after)
    assert_zero(after, count=1)


def test_gradients_of_masked_weights_do_not_count_in_the_norm(digits: Task) -> None:
    """With all but one layer masked away, clipping must see that layer's gradient alone."""
    model = images()
    mask_(model, Masks({"0.weight": torch.zeros(8, 1, 3, 3).bool(), "3.weight": torch.zeros(8, 8, 3, 3).bool()}))
    norms: list[Tensor] = []
    clip = nn.utils.clip_grad_norm_

    def spy(parameters: Any, limit: float) -> Tensor:
        given = list(parameters)
        norms.extend(p.grad for p in given if p.grad is not None and p.shape in ((8, 1, 3, 3), (8, 8, 3, 3)))
        return clip(given, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", spy)
        taught(digits, Training(epochs=1, lr=0.1, clip_norm=1.0), model)
    assert norms and not any(bool(one.any()) for one in norms)


class Told:
    """A context of a method, as far as the gradual schedule asks."""

    steps = 50


@pytest.mark.parametrize(("begin", "end", "every"), [(0.0, 1.0, 1), (0.2, 0.8, 7), (0.0, 0.5, 10)])
def test_the_gradual_schedule_is_the_formula(begin: float, end: float, every: int) -> None:
    torch.manual_seed(0)
    model, final = nn.Linear(100, 100), 0.9
    method = GradualMagnitude(target=Sparsity(overall=final), begin_ratio=begin, end_ratio=end, every_steps=every)
    state = method.start(model, None, Told())  # type: ignore[arg-type]
    t0, last = round(50 * begin), round(50 * end)
    expected = 0.0
    for t in range(1, 51):
        method.step(state)
        if t >= t0 and t <= last and ((t - t0) % every == 0 or t == last):
            expected = final + (0.0 - final) * (1 - (t - t0) / (last - t0)) ** 3  # equation 1 of the paper
        assert 1 - masks_of(model).density == pytest.approx(expected, abs=1e-4 + 1e-9), t
    assert 1 - masks_of(model).density == pytest.approx(final, abs=1e-4)


def test_a_gradual_schedule_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(MethodError, match="begin_ratio to end_ratio"):
        GradualMagnitude(target=Sparsity(overall=0.5), begin_ratio=0.5, end_ratio=0.5)


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
