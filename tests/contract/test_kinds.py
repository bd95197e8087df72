"""What is given in the wrong place, or of the wrong kind, gets a clear error at the door."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import EspalierError, KindError, ModelError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x).relu())


MODEL = Net()
GRAPH = es.trace(MODEL, torch.zeros(2, 3, 8, 8))
SCORES = es.criteria.magnitude(MODEL, GRAPH)
PLAN = es.plan(GRAPH, SCORES, es.Budget(macs=0.5))
SGD = torch.optim.SGD(MODEL.parameters(), 0.1)
Call = Callable[[], Any]

WRONG: list[tuple[Call, str]] = [
    (lambda: es.save(3, "x.safetensors"), "save takes an nn.Module as its model, not int"),
    (lambda: es.save(MODEL.state_dict(), "x.safetensors"), "load them into one"),
    (lambda: es.save(MODEL, 3), "save takes a path .* not int"),
    (lambda: es.load(3, MODEL), "load takes a path"),
    (lambda: es.trace(3, torch.zeros(1)), "trace takes an nn.Module as its model, not int"),
    (lambda: es.trace(Net, torch.zeros(1)), r"not the class Net: give an instance, Net\(\.\.\.\)"),
    (lambda: es.trace("timm:resnet18", torch.zeros(1)), r"es.model\('timm:resnet18'\) builds one"),
    (lambda: es.cut(3, GRAPH, PLAN), "cut takes an nn.Module"),
    (lambda: es.cut(GRAPH, MODEL, PLAN), "the model comes before the graph"),
    (lambda: es.cut(MODEL, MODEL, PLAN), r"cut takes a Graph after the model, not Net: es.trace"),
    (lambda: es.cut(MODEL, GRAPH, SCORES), "cut takes a Plan, not dict: es.Plan"),
    (lambda: es.cut(MODEL, GRAPH, 0.5), r"cut takes a Plan, not float: es.plan\(graph, scores, budget\)"),
    (lambda: es.cut_(MODEL, GRAPH, None), "cut takes a Plan, not NoneType"),
    (lambda: es.prove(MODEL, GRAPH, 3), "prove takes a Plan"),
    (lambda: es.to_graph_module(MODEL, MODEL, PLAN), "to_graph_module takes a Graph"),
    (lambda: es.plan(MODEL, SCORES, es.Budget(macs=0.5)), "plan takes a graph and scores by group, not Net and dict"),
    (lambda: es.plan(GRAPH, 3, es.Budget(macs=0.5)), "not Graph and int"),
    (lambda: es.criteria.magnitude(GRAPH, MODEL), "a criterion takes a model and its graph, not Graph and Net"),
    (lambda: es.criteria.lamp(3, GRAPH), "a criterion takes a model"),
    (lambda: es.model(3), "a model's name is words, not int"),
    (lambda: es.compress(3, None, None), "compress takes an nn.Module"),  # type: ignore[arg-type]
    (lambda: es.Plan([0, 1]), "a plan is a dictionary .*, not list"),
    (lambda: es.Plan({3: (0, 1)}), "a plan is a dictionary .*; 3 is no name"),
    *(
        (lambda units=units: es.Plan({"a": units}), re.escape("'a' of a plan takes the numbers of the units to keep"))
        for units in (0.5, [0.5, 0.25], 4, None, "01", [True, False], [None])
    ),
    (lambda: es.carry_optimizer(MODEL, MODEL, MODEL), "carry_optimizer takes an optimizer of torch.optim first, not N"),
    (lambda: es.carry_optimizer(MODEL, SGD, MODEL), "not Net: it comes before the models"),
    (lambda: es.carry_optimizer(SGD, MODEL, PLAN), "carry_optimizer takes an nn.Module as its model, not Plan"),
    (lambda: es.carry_optimizer(SGD, GRAPH, MODEL), "carry_optimizer takes an nn.Module as its model, not Graph"),
    (lambda: entered(es.gates, 3, GRAPH), "gates takes an nn.Module"),
    (lambda: entered(es.gates, MODEL, PLAN), "gates takes a Graph after the model, not Plan"),
    (lambda: entered(es.gates, MODEL, GRAPH, "one.weight:0"), r"list of names, not str: write \['one.weight:0'\]"),
    (lambda: entered(es.taps, MODEL, MODEL), "taps takes a Graph after the model, not Net"),
    (lambda: entered(es.taps, MODEL, GRAPH, [3]), "taps takes its groups as a list of names, not list"),
]


def entered(context: Any, *given: Any) -> None:
    with context(*given):
        raise AssertionError("it was let in")


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_the_wrong_kind_is_one_clear_error(call: Call, message: str) -> None:
    with pytest.raises(KindError, match=message) as refused:
        call()
    assert isinstance(refused.value, EspalierError) and isinstance(refused.value, TypeError)


EXAMPLES: list[tuple[Any, str]] = [
    (np.zeros((2, 3, 8, 8), "float32"), r"of type ndarray, holds no tensor: .*torch.as_tensor"),
    (
        torch.zeros(2, 3, 8, 8, dtype=torch.int64),
        r"weights are float32, .*: \(2, 3, 8, 8\) of int64\. Pass .* The cause: RuntimeError: ",
    ),
    (torch.zeros(2, 1, 8, 8), r"example: \(2, 1, 8, 8\) of float32\. Pass .* The cause: RuntimeError: Given groups=1"),
    (torch.zeros(8), r"example: \(8,\) of float32\. .* The cause: RuntimeError: "),
    ({"y": torch.zeros(2, 3, 8, 8)}, r"The cause: TypeError: .*unexpected keyword argument 'y'$"),
]


@pytest.mark.parametrize(("example", "message"), EXAMPLES)
def test_a_wrong_example_gets_our_words_with_the_cause_last(example: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        es.trace(MODEL, example)


def test_a_model_that_fails_without_words_still_gets_some() -> None:
    class Silent(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError

    with pytest.raises(ModelError, match="The cause: AssertionError$"):
        es.trace(Silent(), torch.zeros(2, 3, 8, 8))


def test_a_plan_prints_short() -> None:
    assert repr(PLAN) == f"Plan(1 of 1 groups cut, {len(PLAN.keep['one.weight:0'])} of 8 units kept)"
    noted = es.Plan({"a": (0, 2)}, notes=("largest below the budget", "ties keep 2"))
    assert str(noted) == "Plan(1 groups named, 2 units kept in them; largest below the budget; ties keep 2)"
    whole = es.plan(GRAPH, SCORES, es.Budget(macs=1.0))
    assert repr(whole) == (
        "Plan(0 of 1 groups cut, 8 of 8 units kept; the network is already within the budget: nothing is cut)"
    )
    again = es.Plan.from_json(PLAN.to_json())
    assert again == PLAN and repr(again) == repr(PLAN)
    assert es.Plan({"one.weight:0": range(8)}, sizes={"one.weight:0": 8}) == es.Plan({"one.weight:0": range(8)})


def test_a_plan_takes_any_whole_numbers() -> None:
    for units in (range(2), [0, 1], np.arange(2), torch.arange(2), (np.int64(0), 1)):
        assert es.Plan({"a": units}).keep == {"a": (0, 1)}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("given", "message"),
    [({"max_drop": 1.0}, r"Settings\(max_drop=\.\.\.\) or the step Prune"), ({"mac": 0.5}, "Did you mean 'macs'")],
)
def test_a_budget_says_what_to_write_instead(given: dict[str, Any], message: str) -> None:
    with pytest.raises(EspalierError, match=message):
        es.Budget(**given)
    with pytest.raises(EspalierError, match=r"es\.Budget\(macs=0\.5\)"):
        es.Budget(0.5)  # type: ignore[misc]


def test_save_creates_its_folder(tmp_path: Path) -> None:
    es.save(MODEL, tmp_path / "new" / "folder" / "net.safetensors")
    assert es.load(tmp_path / "new" / "folder" / "net.safetensors", Net)


def test_a_network_without_prunable_groups_is_said_to_have_none() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.only(x.flatten(1))

    model = Flat()
    with pytest.raises(es.core.BudgetError, match="no prunable group: nothing in it can be cut"):
        graph = es.trace(model, torch.zeros(2, 1, 8, 8))
        es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5))
    with pytest.raises(EspalierError, match="no prunable group"):
        es.compress(model, es.load_task("digits"), es.Settings(macs=0.5))
