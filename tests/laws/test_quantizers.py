"""The loop lets a quantizer hold the real weights: training changes those, the network shows their quantized values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from espalier.methods import Quantizer
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State
from espalier.tasks import Task, load_task

from .lessons import equal, images, taught


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


@dataclass
class Held:
    """The weight of one layer, and the real numbers behind it."""

    weight: Tensor
    real: Tensor
    lrs: list[float]


def eighths(tensor: Tensor) -> Tensor:
    return (tensor * 8).round() / 8


@dataclass(frozen=True)
class Eighths:
    """Shows a weight in steps of 1/8; gradients pass straight through."""

    TAKES: ClassVar[frozenset[str]] = frozenset()

    def start(self, model, graph, context) -> Held:
        weight = model[3].weight
        state = Held(weight.data, weight.data.clone(), [])
        weight.data.copy_(eighths(state.real))
        return state

    def penalty(self, state, batch, outputs) -> float:
        return 0.0

    def gradients(self, state: Held, lr: float) -> None:
        state.lrs.append(lr)
        state.weight.copy_(state.real)

    def step(self, state: Held) -> None:
        state.real = state.weight.clone()
        state.weight.copy_(eighths(state.real))

    def after_cut(self, state, model, graph) -> None:
        raise AssertionError("nothing is cut")

    def stop(self, state) -> None:
        pass

    def stored(self, state: Held) -> dict[str, Any]:
        return {"real": state.real}

    def resume(self, state: Held, stored) -> None:
        state.real = stored["real"]


def test_the_network_shows_quantized_weights_and_the_real_ones_are_trained(digits: Task) -> None:
    assert isinstance(Eighths(), Quantizer)
    spy = Seen(Eighths())
    learner, end = taught(digits, Training(epochs=2, lr=0.05), images(), method=spy)
    weight, real = learner.model[3].weight.detach(), spy.state.real
    assert torch.equal(weight, eighths(real)) and not torch.equal(weight, real)
    assert end.history[-1].loss < end.history[0].loss
    assert len(spy.state.lrs) == 2 * len(digits.train) and spy.state.lrs[-1] == end.history[-1].lr


class Seen(Eighths):
    """Keeps the state where a test can see it."""

    def __init__(self, method: Eighths) -> None:
        object.__setattr__(self, "state", None)

    def start(self, model, graph, context) -> Held:
        object.__setattr__(self, "state", super().start(model, graph, context))
        return self.state


def test_a_quantizer_goes_on_from_a_checkpoint(digits: Task) -> None:
    training = Training(epochs=1, lr=0.05)
    whole, _ = taught(digits, training, images(), method=Eighths())
    kept = []
    learner = Learner.of(State(images()), training)

    def keep(position: Position, extra) -> None:
        kept.append((learner.state(0).copied(), position, extra()))

    lesson = Lesson(task=digits.new_run(), training=training, stage="x", seed=3, method=Eighths())
    train(learner, lesson, checkpoint=keep)
    state, position, extra = kept[len(kept) // 2]
    again = Learner(state.model, state.optimizer, state.kept, None)
    lesson = Lesson(task=digits.new_run(), training=training, stage="x", seed=3, method=Eighths())
    train(again, lesson, position=position, extra=extra)
    assert equal(again.model, whole.model)
