"""Networks of binary and ternary weights in training: what they show is quantized whenever anybody looks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import ModelError, UnknownNameError
from espalier.graph.grids import Sign, grids_of
from espalier.graph.masks import mask_, zeros_of
from espalier.methods import MethodError, Quantizer, registry
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State
from espalier.tasks import Task, load_task, squared_hinge

from .lessons import equal, taught

TRAINING = Training(epochs=2, lr=0.003, optimizer="adamw", weight_decay=0.0)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "deterministic": ("binary_connect", {}),
    "stochastic": ("binary_connect", {"drawn": "stochastic"}),
    "net": ("binary_net", {}),
    "xnor": ("xnor_net", {}),
    "ternary": ("trained_ternary", {"ends": True}),
}


@pytest.fixture(scope="module")
def digits() -> Task:
    return replace(load_task("digits", batch_size=128), loss=squared_hinge)


class Convs(nn.Module):
    """A small network in XNOR-Net's order."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(self.norm1(self.first(x))))
        return self.last(self.pool(self.conv2(self.norm2(x))).mean((2, 3)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Convs()


def arm(name: str) -> Any:
    method, options = ARMS[name]
    return registry.made(method, options)


def layers(name: str) -> list[str]:
    return ["conv1", "conv2"] if name == "xnor" else ["first", "conv1", "conv2", "last"]


def check_shown(model: nn.Module, name: str) -> None:
    """See that what should be quantized is, exactly, and that nothing else is."""
    for layer in ("first", "conv1", "conv2", "last"):
        weight = model.get_submodule(layer).weight.detach()
        if layer not in layers(name):
            assert len(weight.unique()) > 10
        elif name == "xnor":
            assert all(len(row.abs().unique()) == 1 for row in weight.flatten(1))
        elif name == "ternary":
            assert len(weight.unique()) <= 3 and 0.0 in weight.unique()
        else:
            assert set(weight.unique().tolist()) == {-1.0, 1.0}


class Watched:
    """A task whose networks are looked at whenever they are evaluated."""

    def __init__(self, task: Task, name: str) -> None:
        self.task, self.name, self.looks = task, name, 0

    def measure(self, model: nn.Module, batches: Any, **more: Any) -> dict[str, float]:
        self.looks += 1
        check_shown(model, self.name)
        return self.task.measure(model, batches, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


@pytest.mark.parametrize("name", ARMS)
def test_weights_are_quantized_whenever_they_are_evaluated_and_kept(name: str, digits: Task) -> None:
    method = arm(name)
    assert isinstance(method, Quantizer)
    watched: Any = Watched(digits.new_run(), name)
    learner = Learner.of(State(network()), TRAINING)
    lesson = Lesson(task=watched, training=TRAINING, stage="x", seed=3, method=method)

    def keep(position: Position, extra: Any) -> None:
        check_shown(learner.model, name)

    end = train(learner, lesson, checkpoint=keep)
    check_shown(learner.model, name)
    assert watched.looks == 2 and end.history[-1].loss < end.history[0].loss
    signs = {path for path, made in grids_of(learner.model).inputs.items() if isinstance(made, Sign)}
    assert signs == {"net": {"conv1", "conv2", "last"}, "xnor": {"conv1", "conv2"}}.get(name, set())
    assert not learner.model._forward_pre_hooks  # nobody draws any more


@pytest.mark.parametrize("name", ARMS)
def test_real_weights_move_and_stay_between_minus_one_and_one(name: str, digits: Task) -> None:
    method, held = arm(name), []
    start = type(method).start

    def spy(self: Any, *given: Any) -> Any:
        held.append(start(self, *given))
        return held[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "start", spy)
        taught(digits, TRAINING, network(), method=method)
    for real in held[0]:
        assert len(real.value.unique()) > 20  # they are no signs
        assert name == "ternary" or float(real.value.abs().max()) <= 1.0
        assert torch.equal(real.shown, method.quantized(held[0], real))  # evaluation has not drawn others
    moved = {real.layer for real in held[0]}
    assert moved == set(layers(name))


@pytest.mark.parametrize("name", ARMS)
def test_a_killed_training_goes_on_bit_by_bit(name: str, digits: Task) -> None:
    whole, _ = taught(digits, TRAINING, network(), method=arm(name))
    kept: list[tuple[State, Position, dict[str, Tensor]]] = []
    learner = Learner.of(State(network()), TRAINING)

    def keep(position: Position, extra: Any) -> None:
        kept.append((learner.state(0).copied(), position, {key: one.clone() for key, one in extra().items()}))

    train(learner, _lesson(digits, name), checkpoint=keep)
    for state, position, extra in (kept[3], kept[len(kept) // 2]):
        state.model._forward_pre_hooks.clear()  # a file has no hooks
        again = Learner(state.model, state.optimizer, state.kept, None)  # type: ignore[arg-type]
        train(again, _lesson(digits, name), position=position, extra=extra)
        assert equal(again.model, whole.model)


def _lesson(task: Task, name: str) -> Lesson:
    return Lesson(task=task.new_run(), training=TRAINING, stage="x", seed=3, method=arm(name))


def test_drawn_weights_follow_from_the_seed(digits: Task) -> None:
    once, _ = taught(digits, TRAINING, network(), method=arm("stochastic"))
    again, _ = taught(digits, TRAINING, network(), method=arm("stochastic"))
    plain, _ = taught(digits, TRAINING, network(), method=arm("deterministic"))
    assert equal(once.model, again.model) and not equal(once.model, plain.model)


def test_masked_weights_stay_zero_in_a_ternary_network_and_are_refused_elsewhere(digits: Task) -> None:
    model = network()
    with torch.no_grad():
        model.conv2.weight[model.conv2.weight.abs() < 0.02] = 0
    mask_(model, zeros_of(model))
    learner, _ = taught(digits, TRAINING, copy.deepcopy(model), method=arm("ternary"))
    hidden = model.conv2.weight == 0
    assert int(hidden.sum()) and not learner.model.conv2.weight[hidden].any()
    with pytest.raises(MethodError, match=r"conv2.weight is masked, and -1 and \+1 leave no zero"):
        taught(digits, TRAINING, model, method=arm("deterministic"))
    taught(digits, TRAINING, model, method=registry.made("binary_connect", {"keep": ("conv2",)}))


def test_layers_are_chosen_by_name(digits: Task) -> None:
    learner, _ = taught(digits, TRAINING, network(), method=registry.made("binary_connect", {"only": ("conv*",)}))
    check_shown(learner.model, "xnor")  # the same layers, of plus and minus one
    model, graph = network(), es.trace(network(), digits.example())
    for options, error, words in (
        ({"keep": ("convx",)}, UnknownNameError, "unknown pattern 'convx'"),
        ({"only": ("last",), "ends": False}, ModelError, "the first and the last are never meant"),
    ):
        with pytest.raises(error, match=words):
            registry.made("binary_connect", options).start(model, graph, None)  # type: ignore[arg-type]


def test_gradients_are_clipped_with_the_real_weights(digits: Task) -> None:
    for name in ("xnor", "ternary"):
        training = TRAINING.model_copy(update={"clip_norm": 0.1, "accumulate_steps": 2})
        learner, end = taught(digits, training, network(), method=arm(name))
        check_shown(learner.model, name)
        assert end.history[-1].accuracy is not None
