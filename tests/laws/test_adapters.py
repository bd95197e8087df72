"""What a loss learns beside the network: trained with it, averaged over ranks, and the same after a crash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core.run import Run
from espalier.recipes import Distill, Measure, Prune, Recipe, Training
from espalier.recipes.folders.folder import read_run
from espalier.recipes.stages import prune
from espalier.recipes.training.adapters import Adapters
from espalier.recipes.work import _Scribe
from espalier.tasks import Task

from .stopped_runs import Killed, assert_same, network

LEARNED = Distill(epochs=3, lr=0.005, features="hints", adapter="learned", temperature=2.0)


def recipe(distill: Distill) -> Recipe:
    steps = (Prune(macs=0.4, criterion="magnitude"), distill, Measure(latency=False))
    return Recipe(steps=steps, batch_size=256, checkpoint_seconds=0)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_goes_on_with_its_adapters(
    optimizer: str, digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = recipe(LEARNED.model_copy(update={"optimizer": optimizer}))
    whole = es.compress(network(), digits, how, folder=tmp_path / "whole").run
    real, calls = _Scribe.__call__, 0

    def stopped(self: _Scribe, position: Any, extra: Any) -> None:
        nonlocal calls
        real(self, position, extra)
        calls += 1
        if calls == 8:  # in the second epoch
            assert any(name.startswith("adapters/optimizer/") for name in extra())
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(_Scribe, "__call__", stopped)
        with pytest.raises(Killed):
            es.compress(network(), digits, how, folder=tmp_path / "run")
    es.resume(tmp_path / "run", network(), digits)
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert noted(read_run(tmp_path / "run")) == noted(whole)


def noted(run: Run) -> list[str]:
    found = [note for note in run.notes if "channels" in note]
    assert found  # which layers were compared
    return found


def test_adapters_learn(digits: Task) -> None:
    made: list[Adapters] = []
    real = Adapters.step

    def step(self: Adapters, lr: float) -> None:
        if not made:
            made.append(self)
            made.append(SimpleNamespace(start=[p.detach().clone() for p in self.parameters]))  # type: ignore[arg-type]
        real(self, lr)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Adapters, "step", step)
        es.compress(network(), digits, recipe(LEARNED))
    adapters, before = made[0], made[1].start  # type: ignore[attr-defined]
    assert before and all(not torch.equal(p, q) for p, q in zip(adapters.parameters, before, strict=True))


@dataclass
class Two:
    """Two ranks of which the other's gradients are known."""

    others: list[Tensor]
    ranks: int = 2

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor + self.others.pop(0)


def test_gradients_are_averaged_over_ranks() -> None:
    module, training = nn.Linear(2, 1), Training(momentum=0.0, weight_decay=0.0)
    theirs = [torch.full((1, 2), 3.0), torch.full((1,), 5.0)]
    adapters = Adapters(module, training, Two(theirs))  # type: ignore[arg-type]
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    module.weight.grad = torch.ones(1, 2)  # the bias has none on this rank
    adapters.step(0.5)
    assert torch.equal(module.weight, weight - 0.5 * 2.0) and torch.equal(module.bias, bias - 0.5 * 2.5)


def test_what_a_cut_cannot_keep_is_in_the_run(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prune.cut

    def cut(*given: Any, **named: Any) -> nn.Module:
        small: Any = real(*given, **named)
        small.espalier_notes = ("its config cannot say how wide it is",)
        return small

    monkeypatch.setattr(prune, "cut", cut)
    run = es.compress(network(), digits, recipe(Distill(epochs=0))).run
    assert "its config cannot say how wide it is" in run.notes
