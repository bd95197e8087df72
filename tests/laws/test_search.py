"""The search under an accuracy limit: it goes down while it may, undoes what went too far, and ends at the limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import BudgetError, Cost
from espalier.core.run import Point
from espalier.recipes import Measure, Prune, Recipe, Train, Training
from espalier.recipes.stages import search as room
from espalier.recipes.stages.prune import Aim
from espalier.tasks import load_task

DENSE = 1000


@dataclass
class Mock:
    """A run whose networks are numbers: what is cut has the MACs that were asked for, and a score that follows."""

    score_of: Callable[[int], float]
    least: int = 1
    hurt: float = 0.3  # what a cut costs before it is trained
    path: list[Point] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
    narrow: int = DENSE
    trained: int = 0

    def __post_init__(self) -> None:
        self.dense = self.handle(DENSE)
        self.checkpoints = SimpleNamespace(once=self.once, pin=lambda role, handle: self.pinned.append(handle.macs))
        self.journal = SimpleNamespace(note=self.notes.append)
        self.task = SimpleNamespace(metric="accuracy")

    def handle(self, macs: int) -> Any:
        return SimpleNamespace(macs=macs)

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        return {"half": 0.01, "batches": 4}

    def score(self, key: str, handle: Any) -> float:
        return self.score_of(handle.macs) - self.hurt * (handle.macs < DENSE)

    def learn(self, key: str, handle: Any, training: Training, stage: str, *, objective: object) -> tuple[Any, float]:
        self.trained += 1
        return handle, self.score_of(handle.macs)

    def visit(self, point: Point) -> None:
        self.path.append(point)

    def narrowed(self, handle: Any) -> None:
        self.narrow = handle.macs

    def cut(self, step: Prune, key: str, work: Any, handle: Any, target: Any) -> tuple[Any, Cost]:
        if target.budget.macs < self.least:
            raise BudgetError("the smallest plan is larger")
        macs = int(target.budget.macs)
        return self.handle(macs), Cost(macs, macs, macs)


def searched(monkeypatch: pytest.MonkeyPatch, mock: Mock, limits: dict[str, int] | None = None, **wishes: Any) -> int:
    step = Prune.model_validate({"max_drop": 1.0, "step_ratio": 0.75, "finetune": Training(epochs=1, lr=0.1), **wishes})
    monkeypatch.setattr(room, "cut_once", mock.cut)
    monkeypatch.setattr(room, "aim_of", lambda *_: Aim(Cost(DENSE, DENSE, DENSE), dict(limits or {}), None))
    return room.search(step, "1-prune", mock, mock.dense).macs  # type: ignore[arg-type, attr-defined]


def cliff(macs: int) -> float:
    return 0.9 if macs >= 400 else 0.5


def test_it_ends_just_above_the_cliff(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(cliff)
    assert 400 <= searched(monkeypatch, mock) <= 400 / 0.93
    trained = [point for point in mock.path if point.kind == "trained"]
    assert [point.accepted for point in trained] == [point.macs >= 400 for point in trained]
    assert [point.macs for point in trained][:3] == [750, 562, 421] and False in [p.accepted for p in trained]
    assert mock.narrow == mock.pinned[-1] == min(point.macs for point in trained if point.accepted)
    assert "a smaller step would not matter" in mock.notes[-1] and "none of the extra epochs" in mock.notes[-1]


def test_a_drop_of_exactly_what_is_allowed_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert searched(monkeypatch, Mock(lambda macs: 0.5 - 0.25 * (macs < DENSE)), max_drop=25.0, max_rounds=1) == 750
    assert searched(monkeypatch, Mock(lambda macs: 0.5 - 0.25 * (macs < DENSE)), max_drop=24.9, max_rounds=1) == DENSE


def test_nothing_accepted_leaves_the_dense_network(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(lambda macs: 0.9 if macs == DENSE else 0.1)
    assert searched(monkeypatch, mock) == DENSE == mock.narrow


def test_what_loses_little_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(cliff, hurt=0.0)
    assert 400 <= searched(monkeypatch, mock) <= 400 / 0.93
    assert mock.trained == sum(not point.accepted for point in mock.path if point.kind == "cut")
    assert all(point.kind == "cut" for point in mock.path if point.accepted)


class Slow(Mock):
    """Its networks need training twice: the first time leaves them short by some."""

    short: float = 0.004

    def learn(self, key: str, handle: Any, training: Training, stage: str, *, objective: object) -> tuple[Any, float]:
        handle, score = super().learn(key, handle, training, stage, objective=objective)
        again = key.endswith("again")
        assert training.lr == (0.05 if again else 0.1)
        return handle, score - (0.0 if again else 0.01 + self.short)


def test_what_misses_by_little_is_trained_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Slow(lambda macs: 0.9)
    assert searched(monkeypatch, mock, max_rounds=2) == 562 and mock.trained == 4
    assert [point.accepted for point in mock.path] == 6 * [True]
    assert searched(monkeypatch, Slow(lambda macs: 0.9), max_rounds=2, retry_ratio=0) == DENSE
    mock = Slow(lambda macs: 0.9)
    mock.short = 0.006
    assert searched(monkeypatch, mock, max_rounds=2) == DENSE and mock.trained == 2


def test_rounds_bound_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(lambda macs: 0.9)
    assert searched(monkeypatch, mock, max_rounds=2) == 562
    assert "2 rounds were used up" in mock.notes[-1]


def test_a_budget_ends_it_at_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(lambda macs: 0.9)
    assert searched(monkeypatch, mock, {"macs": 500}, macs=0.5) == 500
    assert "the budget was met" in mock.notes[-1]


def test_the_smallest_plan_is_met_by_smaller_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(lambda macs: 0.9, least=400)
    assert 400 <= searched(monkeypatch, mock) <= 400 / 0.93
    assert any("smallest plan" in note for note in mock.notes)


@pytest.mark.slow
def test_a_real_search_keeps_its_limit_on_validation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    prune = Prune(max_drop=2.0, finetune=Training(epochs=1, lr=0.05), recover=("least_squares",), max_rounds=8)
    recipe = Recipe(steps=(Train(epochs=8), prune, Measure(latency=False)))
    run = es.compress(model, load_task("digits", batch_size=64), recipe).run
    reference = next(point.score for point in run.path if point.kind == "dense")
    accepted = [one for one in run.path if one.accepted and one.kind != "dense"]
    last = {one.stage: one.score for one in accepted}  # of a round, what was judged
    assert last and all(100 * (reference - score) <= 2.0 + 1e-6 for score in last.values())
    assert run.after.macs == accepted[-1].macs < (run.before.macs or 0)


def test_rounds_learn_what_the_dense_network_says_where_asked() -> None:
    task = load_task("digits", batch_size=256)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def weights(*, distill: bool) -> torch.Tensor:
        prune = Prune(macs=0.5, criterion="magnitude", finetune=Training(epochs=1, lr=0.05), distill=distill)
        recipe = Recipe(steps=(Train(epochs=1), prune, Measure(latency=False)), batch_size=256)
        small = es.compress(model, task, recipe).model
        return torch.cat([tensor.flatten() for tensor in small.parameters()])

    plain, again, taught = weights(distill=False), weights(distill=False), weights(distill=True)
    assert torch.equal(plain, again) and not torch.allclose(plain, taught)


def test_the_interval_of_the_drop_is_student_s() -> None:
    drops = [0.1, 0.3, 0.2, 0.4]
    dense, small = nn.Linear(1, 1), nn.Linear(1, 1)
    task = SimpleNamespace(
        validation=list(range(4)), evaluate=lambda model, batch: 1.0 if model is dense else 1.0 - drops[batch[0]]
    )
    work: Any = SimpleNamespace(engine=SimpleNamespace(device=torch.device("cpu")), task=task)
    states: Any = (SimpleNamespace(model=dense), SimpleNamespace(model=small))
    found = room.paired_spread(work, *states)
    # sd 0.1291 / sqrt(4) times t(3) = 3.1824
    assert found["batches"] == 4 and found["half"] == pytest.approx(3.1824 * 0.12909944 / 2, rel=1e-4)
