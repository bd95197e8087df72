"""What Python decides by a size: planning leaves it as it was, and what cannot be followed is refused or frozen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import BudgetError, ProofError, UnknownNameError
from espalier.graph.recording.hearing import hearing
from espalier.graph.recording.sizes import Size


class Decides(nn.Module):
    """Eight channels between two layers, and a decision about them."""

    def __init__(self, decide: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.decide, self.width = nn.Linear(4, 8), nn.Linear(8, 4), decide, 8

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.decide(self, self.a(x)))


def branch(condition: Callable[[Any], bool]) -> Callable[[Any, Tensor], Tensor]:
    return lambda _, y: y.relu() if condition(y.shape[-1]) else y.sigmoid()


BRANCHES = {
    "above": (lambda n: n > 5, 6),
    "not below": (lambda n: not n < 5, 5),
    "at least": (lambda n: n >= 3, 3),
    "not equal": (lambda n: n != 1, 2),
    "equal": (lambda n: n == 8, 8),
    "even": (lambda n: n % 2 == 0, 2),
    "truth": (lambda n: bool(n // 4), 4),
    "float": (lambda n: n / 2 > 2.4, 5),
    "min": (lambda n: min(n, 6) < n, 7),
    "square root": (lambda n: sqrt(n) > 2, 5),
}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("asked", range(1, 9))
def test_a_plan_leaves_branches_as_they_were(name: str, asked: int) -> None:
    condition, least = BRANCHES[name]
    torch.manual_seed(0)
    model, example = Decides(branch(condition)).eval(), torch.randn(2, 4)
    graph = es.trace(model, example)
    counts = graph.feasible({"a.weight:0": asked})
    kept = counts["a.weight:0"]
    assert kept >= max(asked, least)
    assert kept - asked <= max(1, least - asked), "no more than the branch needs, or to the next even number"
    assert es.cut(model, graph, es.Plan({"a.weight:0": tuple(range(kept))})).espalier_proof == "float64"
    if asked < least:
        with pytest.raises(ProofError, match="Python found|Python's"):
            es.cut(model, graph, es.Plan({"a.weight:0": tuple(range(asked))}))


def test_a_budget_beyond_a_branch_names_the_smallest_within_it() -> None:
    model, example = Decides(branch(lambda n: n > 5)).eval(), torch.randn(2, 4)
    graph = es.trace(model, example)
    scores = es.criteria.magnitude(model, graph)
    plan = es.plan(graph, scores, es.Budget(macs=0.8))
    assert len(plan.keep["a.weight:0"]) == 6
    with pytest.raises(BudgetError):
        es.plan(graph, scores, es.Budget(macs=0.5))


def test_a_loop_over_a_size_freezes_with_its_line() -> None:
    def loop(_: Any, y: Tensor) -> Tensor:
        for _turn in range(y.shape[-1] // 4):
            y = y.relu() * 0.5
        return y

    graph = es.trace(Decides(loop).eval(), torch.randn(2, 4))
    assert not graph.groups
    assert any("loop" in item.reason and "test_conditions.py" in item.source for item in graph.frozen)


SCALES = {
    "math imported by name": lambda n: sqrt(n),
    "numpy": lambda n: np.sqrt(n),
    "product": lambda n: prod([n, 2]),
    "attribute power": lambda n: n**0.5,
}


@pytest.mark.parametrize("name", SCALES)
def test_factors_of_a_size_are_followed(name: str) -> None:
    scale = SCALES[name]
    torch.manual_seed(0)
    model, example = Decides(lambda _, y: y / scale(y.shape[-1])).eval(), torch.randn(2, 4)
    graph = es.trace(model, example)
    small = es.cut(model, graph, es.Plan({"a.weight:0": (0, 3, 5)}))
    assert small.espalier_proof == "float64"


def test_a_size_made_bare_is_refused_with_its_line() -> None:
    model = Decides(lambda _, y: y * float(y.shape[-1])).eval()
    graph = es.trace(model, torch.randn(2, 4))
    with pytest.raises(ProofError, match=r"bare number at .*test_conditions\.py"):
        es.cut(model, graph, es.Plan({"a.weight:0": (0, 1)}))


def test_rounding_keeps_a_size() -> None:
    import math

    def decide(_: Any, y: Tensor) -> Tensor:
        half = math.ceil(y.shape[-1] / 2)
        return torch.cat([y[:, :half].relu(), y[:, half:]], -1)

    model, example = Decides(decide).eval(), torch.randn(2, 4)
    graph = es.trace(model, example)
    for name, size in graph.sizes.items():
        small = es.cut(model, graph, es.Plan({name: tuple(range(size // 2))}))
        assert small.espalier_proof == "float64"


def test_hearing_leaves_python_as_it_was() -> None:
    import math

    before = math.sqrt, math.prod, np.sqrt, np.prod, globals().get("range"), sqrt, prod
    model = Decides(lambda _, y: y)
    with hearing(model):
        assert isinstance(range(3), range), "the module's own range still makes ranges"
        assert math.sqrt is not before[0]
    assert (math.sqrt, math.prod, np.sqrt, np.prod, globals().get("range"), sqrt, prod) == before
    assert Size.heard is None


def test_groups_that_fail_can_be_frozen_and_the_rest_is_cut() -> None:
    class Two(Decides):
        def __init__(self) -> None:
            super().__init__(lambda _, y: y * float(y.shape[-1]))
            self.c = nn.Linear(4, 6)
            self.d = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.d(self.c(x).relu()))

    model, example = Two().eval(), torch.randn(2, 4)
    graph = es.trace(model, example)
    plan = es.Plan({name: tuple(range(size // 2)) for name, size in graph.sizes.items()})
    with pytest.raises(ProofError) as failed:
        es.cut(model, graph, plan)
    assert failed.value.groups == ("a.weight:0",)
    rest = es.freeze(graph, failed.value.groups, "its size becomes a bare number")
    assert "a.weight:0" in graph.groups, "the given graph is untouched"
    assert set(rest.groups) == set(graph.groups) - {"a.weight:0"}
    assert "its size becomes a bare number" in rest.explain("a")
    keep = {name: units for name, units in plan.keep.items() if name in rest.groups}
    assert es.cut(model, rest, es.Plan(keep)).espalier_proof == "float64"
    with pytest.raises(UnknownNameError, match="a.weight:0"):
        es.freeze(graph, ["a.weight:1"], "")


def test_positions_that_the_example_does_not_reach_stay() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("ids", torch.arange(32)[None])
            self.table = nn.Parameter(torch.randn(1, 32, 6))
            self.embed, self.a, self.b = nn.Embedding(32, 6), nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            length = x.shape[1]
            return self.b(self.a(x + self.table[:, :length] + self.embed(self.ids[:, :length])).relu())

    model = Positions().eval()
    graph = es.trace(model, torch.randn(2, 5, 6))
    assert list(graph.groups) == ["a.weight:0"]
    assert any(item.tensor == "ids" and "bound is a size of the input" in item.reason for item in graph.frozen)
    small = es.cut(model, graph, es.Plan({"a.weight:0": (0, 1, 2)}))
    assert small(torch.randn(2, 32, 6)).shape == (2, 32, 4), "a longer input still runs"


def test_the_engine_does_not_listen_to_itself_when_a_model_of_the_zoo_is_traced() -> None:
    model, own = es.model("espalier:digits_cnn"), sys.modules["espalier.graph.axes.conditions"]
    theirs = sys.modules[type(model).__module__]
    assert "range" not in vars(own) and "range" not in vars(theirs)
    with hearing(model):
        assert "range" not in vars(own)
        assert "range" in vars(theirs)
