"""The training loop calls a method as the protocol says, cuts and goes back for it, and resumes it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from espalier import Budget, criteria, plan
from espalier.core import Plan
from espalier.methods import Restore, Snapshot
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State
from espalier.tasks import Task, load_task

from .lessons import ONE, equal, images, taught


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


@dataclass
class Diary:
    """A method's state: what it was told, and what it keeps."""

    told: list[str] = field(default_factory=list)
    count: int = 0
    snapshot: Snapshot | None = None
    model: Any = None
    graph: Any = None
    noise: float = 0.0
    context: Any = None


@dataclass(frozen=True)
class Halves:
    """Cut the network to half of its MACs at one step, go back at another, and cut at the end."""

    cut_at: int = 5
    back_at: int = 0

    def start(self, model, graph, context) -> Diary:
        state = Diary(["start"], model=model, graph=graph, context=context)
        state.snapshot = context.snapshot() if self.back_at else None
        return state

    def penalty(self, state, batch, outputs) -> Tensor:
        return 1e-3 * (outputs**2).mean()

    def plan(self, state) -> Plan:
        return plan(state.graph, criteria.magnitude(state.model, state.graph), Budget(macs=0.5))

    def step(self, state):
        state.count += 1
        state.noise += float(torch.rand((), generator=state.context.generator))
        if state.count == self.cut_at:
            return self.plan(state)
        return Restore(state.snapshot) if state.count == self.back_at else None

    def after_cut(self, state, model, graph) -> None:
        state.told.append("after_cut")
        state.model, state.graph = model, graph

    def stop(self, state):
        state.told.append("stop")

    def stored(self, state):
        return {"count": state.count, "noise": torch.tensor(state.noise, dtype=torch.float64)}

    def resume(self, state, stored) -> None:
        state.count, state.noise = stored["count"], float(stored["noise"])


class Spy:
    """Passes everything on to a method, and keeps the state where a test can see it."""

    def __init__(self, method: Halves, *, fails: bool = False) -> None:
        self.method, self.fails = method, fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def start(self, model, graph, context) -> Diary:
        self.state = self.method.start(model, graph, context)
        return self.state

    def penalty(self, state, batch, outputs) -> Tensor:
        if self.fails:
            raise RuntimeError("on purpose")
        return self.method.penalty(state, batch, outputs)


def test_a_method_is_started_asked_told_and_stopped(digits: Task) -> None:
    spy = Spy(Halves())
    learner, end = taught(digits, Training(epochs=2, lr=0.05, ema_decay=0.9), images(), method=spy)
    assert spy.state.told == ["start", "after_cut", "stop"] and spy.state.count == 2 * len(digits.train)
    widths = [learner.model[i].out_channels for i in (0, 3)]
    assert sum(widths) < 16 and widths == [learner.best_known[i].out_channels for i in (0, 3)]
    assert sorted(len(units) for units in learner.kept.values()) == sorted(width for width in widths if width < 8)
    moments = learner.optimizer.state[learner.model[3].weight]["momentum_buffer"]
    assert moments.shape == learner.model[3].weight.shape and end.history[-1].loss < end.history[0].loss


def test_a_method_may_go_back(digits: Task) -> None:
    spy = Spy(Halves(cut_at=5, back_at=9))
    learner, _ = taught(digits, Training(epochs=2, lr=0.05), images(), method=spy)
    assert spy.state.told == ["start", "after_cut", "after_cut", "stop"]
    assert learner.model[0].out_channels == 8 and not learner.kept


def test_a_method_goes_on_from_a_checkpoint(digits: Task) -> None:
    training = Training(epochs=2, lr=0.05)
    whole, _ = taught(digits, training, images(), method=Halves())
    kept = []
    learner = Learner.of(State(images()), training)

    def keep(position: Position, extra) -> None:
        kept.append((learner.state(0).copied(), position, extra()))

    lesson = Lesson(task=digits.new_run(), training=training, stage="x", seed=3, method=Halves())
    train(learner, lesson, checkpoint=keep)
    for at in (2, 4, 6, 12):
        state, position, extra = kept[at]
        again = Learner.of(state, training)
        lesson = dataclasses.replace(lesson, task=digits.new_run())
        train(again, lesson, position=position, extra=extra)
        assert equal(whole.model, again.model)


def test_a_method_that_fails_is_closed(digits: Task) -> None:
    spy = Spy(Halves(), fails=True)
    with pytest.raises(RuntimeError, match="on purpose"):
        taught(digits, ONE, images(), method=spy)
    assert spy.state.told[-1] == "stop"


def test_a_method_may_train_and_evaluate(digits: Task) -> None:
    @dataclass(frozen=True)
    class Trains(Halves):
        def step(self, state):
            state.count += 1
            if state.count == 3:
                before = state.model
                state.context.train(1)
                assert state.context.snapshot().held.model is not before
                assert 0 <= state.context.evaluate(before) <= 1
                assert len(list(state.context.batches(2))) == 2
            return None

    learner, end = taught(digits, ONE, images(), method=Trains())
    assert len(end.history) == 1 and learner.optimizer.state
