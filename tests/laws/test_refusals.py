"""What an ordinary model may hold, and no proof should refuse: half of every group is cut, and proved."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import ModelError, PlanError, ProofError, Surgery

from .wrong_pairings import every_other


class Small(nn.Module):
    """Two wide layers and a narrow one behind what ``forward`` does with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.c, self.b = nn.Linear(8, 6), nn.Linear(8, 10), nn.Linear(16, 3)
        self.does = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def halved(model: nn.Module, example: Tensor) -> nn.Module:
    """Trace a model and keep every other unit of every group."""
    graph = es.trace(model.eval(), example)
    assert graph.groups
    return es.cut(model, graph, every_other(graph))


def sliced(net: Small, x: Tensor) -> Tensor:
    out = x.new_empty(len(x), net.a.out_features + net.c.out_features)
    out[:, : net.a.out_features] = net.a(x)
    out[:, net.a.out_features :] = net.c(x)
    return net.b(out)


def selected(net: Small, x: Tensor) -> Tensor:
    both = torch.cat([net.a(x), net.c(x)], -1)
    out = torch.empty_like(both)
    for row in range(2):
        out[row] = both[row].relu()
    return net.b(out)


@pytest.mark.parametrize("forward", [sliced, selected])
def test_memory_that_nothing_has_written_yet_refuses_nothing(forward: Callable) -> None:
    torch.manual_seed(0)
    spoiled = [torch.full((2, 16), float(n)) for n in range(64)]  # what the next empty tensors find
    del spoiled
    assert halved(Small(forward), torch.randn(2, 8)).espalier_proof == "float64"


def lowered(net: Small, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        both = torch.cat([net.a(x), net.c(x)], -1).relu()
    return net.b(both.float())


class Decorated(Small):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.cat([self.a(x), self.c(x)], -1))


@pytest.mark.parametrize("model", [Small(lowered), Decorated(lowered)])
def test_autocast_inside_a_model_refuses_nothing_and_is_named(model: nn.Module) -> None:
    graph = es.trace(model.eval(), torch.randn(2, 8))
    small = es.cut(model, graph, every_other(graph))
    assert small.espalier_proof in ("float64", "float32")
    assert not any("_to_copy" in op.name and torch.bfloat16 in op.kwargs.values() for op in graph.records[0].ops)
    where = "a decorator" if isinstance(model, Decorated) else "test_refusals.py:"
    assert any(f"torch.autocast at {where}" in note for note in graph.notes)
    assert small(torch.randn(2, 8)).shape == (2, 3)


def test_autocast_around_the_engine_refuses_nothing_and_stays_on() -> None:
    model = Small(lambda net, x: net.b(torch.cat([net.a(x), net.c(x)], -1)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert halved(model, torch.randn(2, 8)).espalier_proof == "float64"
        assert model(torch.randn(2, 8)).dtype == torch.bfloat16


def test_weights_that_only_autocast_makes_fit_their_inputs_are_traced() -> None:
    model = Small(lowered)
    model.a.bfloat16()
    model(torch.randn(2, 8))
    assert halved(model, torch.randn(2, 8)).espalier_proof == "float32"
    assert model.a.weight.dtype == torch.bfloat16


def test_a_cast_that_the_model_writes_stays_in_the_record() -> None:
    model = Small(lambda net, x: net.b(torch.cat([net.a(x), net.c(x)], -1).bfloat16().float()))
    graph = es.trace(model.eval(), torch.randn(2, 8))
    assert any(torch.bfloat16 in (*op.args, *op.kwargs.values()) for op in graph.records[0].ops)
    assert not any("autocast" in note for note in graph.notes)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_any_default_dtype_is_cut_as_float32_is(dtype: torch.dtype) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for forward in (sliced, lambda net, x: net.b(torch.cat([net.a(x), net.c(x)], -1).softmax(-1))):
            assert halved(Small(forward), torch.randn(2, 8)).espalier_proof == "float64"
    finally:
        torch.set_default_dtype(before)


class LowRank(nn.Module):
    """A weight with a low-rank update, scaled by the rank as LoRA does."""

    def __init__(self, alpha: int = 16) -> None:
        super().__init__()
        self.base, self.head, self.alpha = nn.Linear(8, 12), nn.Linear(12, 3), alpha
        self.down, self.up = nn.Parameter(torch.randn(4, 8)), nn.Parameter(torch.randn(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        update = (self.up @ self.down) * (self.alpha / self.down.shape[0])
        return self.head(nn.functional.linear(x, self.base.weight + update, self.base.bias).relu())


def test_a_scale_by_the_rank_of_two_factors_is_made_up_for() -> None:
    torch.manual_seed(0)
    model, example = LowRank().eval(), torch.randn(2, 8)
    graph = es.trace(model, example)
    small = es.cut(model, graph, es.Plan({"down:0": (0, 2)}))
    assert small.espalier_proof == "float64"
    with torch.no_grad():
        model.up[:, [1, 3]] = 0
    torch.testing.assert_close(small(example), model(example))
    assert halved(LowRank(), example).espalier_proof == "float64"


SHIFTS = {
    "log": lambda y: y + math.log(y.shape[1]),
    "by name": lambda y: y - log2(y.shape[-1]),
    "base": lambda y: y * math.log(y.size(1), 10),
    "numpy": lambda y: y + np.log1p(y.shape[1]),
    "exp": lambda y: y + math.exp(-y.shape[1]),
    "pow": lambda y: y * math.pow(y.shape[1], -0.5) + math.pow(y.shape[1], 0.5),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_what_python_computes_of_a_size_follows_it(name: str) -> None:
    model = Small(lambda net, x: net.b(SHIFTS[name](torch.cat([net.a(x), net.c(x)], -1).relu())))
    example = torch.randn(2, 8)
    assert halved(model, example).espalier_proof == "float64"
    assert any(group.statistics for group in es.trace(model, example).groups.values())


def test_a_bare_number_of_a_size_is_named_with_its_line() -> None:
    model = Small(lambda net, x: net.b(torch.cat([net.a(x), net.c(x)], -1) + math.tanh(net.a(x).shape[1] / 100)))
    with pytest.raises(ProofError, match=r"a size becomes a bare number at .*test_refusals\.py:\d+"):
        halved(model, torch.randn(2, 8))


class Locked(Small):
    def __init__(self) -> None:
        super().__init__(lowered)
        self.part = nn.Linear(2, 2)
        self.part.lock = threading.Lock()  # type: ignore[assignment]


def test_what_cannot_be_copied_is_named() -> None:
    with pytest.raises(ModelError, match=r"Locked cannot be copied.*its 'part.lock' is a lock\."):
        es.trace(Locked(), torch.randn(2, 8))


@pytest.mark.parametrize(
    ("value", "words"),
    [(math.nan, "'a.weight': weights are NaN or infinite"), (1e30, "'a.weight' holds weights as large as 1e.30")],
)
def test_weights_without_a_score_are_named(value: float, words: str) -> None:
    model = Small(sliced).eval()
    graph = es.trace(model, torch.randn(2, 8))
    nn.init.constant_(model.a.weight, value)
    with pytest.raises(ModelError, match=words):
        es.criteria.magnitude(model, graph)


def test_an_empty_batch_says_so_and_no_list_is_empty() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    graph = es.trace(model, torch.randn(0, 8))
    with pytest.raises(ProofError, match=r"an example that is not empty.*no group alone: none is cut"):
        es.cut(model, graph, es.Plan({}))


@pytest.mark.parametrize("options", [{"limit": ["a"]}, {"limit": {3: 0.5}}, {"keep": [3]}, {"keep": 3}, {"only": 3}])
def test_patterns_of_another_kind_are_one_clear_error(options: dict[str, Any]) -> None:
    model = Small(sliced).eval()
    graph = es.trace(model, torch.randn(2, 8))
    with pytest.raises(PlanError, match=f"{next(iter(options))}=.*give a "):
        es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5), **options)


SLICE = {"op": "slice", "tensor": "a.weight", "dim": 0, "keep": [0, 2], "size": 6}
SET = {"op": "set", "module": "a", "path": ["out_features"], "value": 2}


@pytest.mark.parametrize(
    "foreign",
    [
        {**SLICE, "keep": "02"},
        {**SLICE, "keep": [0.0, 2]},
        {**SLICE, "dim": False},
        {**SLICE, "size": 10**400},
        {**SLICE, "tensor": None},
        {**SET, "value": 10**400},
        {**SET, "value": math.nan},
        {**SET, "value": {"a": 1}},
        {**SET, "path": "out_features"},
        {**SET, "path": [["out_features"]]},
        {**SET, "module": 3},
    ],
)
def test_a_surgery_is_read_from_what_it_writes_alone(foreign: dict[str, Any]) -> None:
    assert Surgery.from_data([SLICE, SET]).to_data() == [SLICE, SET]
    with pytest.raises(TypeError):
        Surgery.from_data([foreign])
