"""What a standard layer says of its own weights is a size: arithmetic with it follows the cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es

from ..patterns.base import Net, ids, image, tokens
from ..patterns.masking import counted_plan

Case = tuple[Callable[[], Net], Callable[[], Tensor], str]  # network, example, tensor whose axis is cut


def table(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.one(x) * net.one.embedding_dim**0.5).relu())


def linear(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.one(x).relu() / math.sqrt(net.two.in_features)).relu() / net.one.out_features)


def normed(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.norm(net.one(x)) * net.norm.num_features**-0.5).relu() * net.two.out_channels)


def grouped(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.one(x).relu()) * (1 / net.two.in_channels))


def layer_normed(net: Net, x: Tensor) -> Tensor:
    y = net.norm(net.one(x).relu())
    return net.head(y * net.norm.normalized_shape[0] ** -0.5 + y / math.prod(net.norm.normalized_shape))


def recurrent(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.one(x))[0] * net.two.hidden_size**-0.5 / net.two.input_size)


def zeros(net: Net, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.head(
        torch.cat([y, y.new_zeros(*y.shape[:2], net.two.out_features) + net.two(x)], -1) / net.head.in_features
    )


def slopes(net: Net, x: Tensor) -> Tensor:
    return net.head(net.two(net.one(x)) * net.two.num_parameters)


CASES: dict[str, Case] = {
    "embedding": (
        lambda: Net(table, one=nn.Embedding(8, 12), two=nn.Linear(12, 6), head=nn.Linear(6, 4)), ids(), "one.weight"
    ),
    "linear": (
        lambda: Net(linear, one=nn.Linear(4, 8), two=nn.Linear(8, 6), head=nn.Linear(6, 4)), tokens(4, 4), "two.weight"
    ),
    "batch_norm": (
        lambda: Net(
            normed, one=nn.Conv2d(3, 8, 1), norm=nn.BatchNorm2d(8), two=nn.Conv2d(8, 6, 1), head=nn.Conv2d(6, 4, 1)
        ),
        image(),
        "norm.weight",
    ),
    "grouped": (
        lambda: Net(
            grouped, one=nn.Conv2d(3, 8, 1), two=nn.Conv2d(8, 8, 3, groups=4, padding=1), head=nn.Conv2d(8, 4, 1)
        ),
        image(),
        "one.weight",
    ),
    "layer_norm": (
        lambda: Net(layer_normed, one=nn.Linear(4, 8), norm=nn.LayerNorm(8), head=nn.Linear(8, 4)),
        tokens(4, 4),
        "norm.weight",
    ),
    "recurrent": (
        lambda: Net(recurrent, one=nn.Linear(4, 6), two=nn.GRU(6, 8, batch_first=True), head=nn.Linear(8, 4)),
        tokens(4, 4),
        "one.weight",
    ),
    "zeros": (
        lambda: Net(zeros, one=nn.Linear(4, 8), two=nn.Linear(4, 6), head=nn.Linear(14, 4)), tokens(4, 4), "two.weight"
    ),
    "slopes": (
        lambda: Net(slopes, one=nn.Conv2d(3, 8, 1), two=nn.PReLU(8), head=nn.Conv2d(8, 4, 1)), image(), "two.weight"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_arithmetic_with_what_a_layer_says_follows_the_cut(name: str) -> None:
    make, example_of, tensor = CASES[name]
    torch.manual_seed(0)
    model, example = make().eval(), example_of()
    graph = es.trace(model, example)
    keep = counted_plan(graph, graph.groups, seed=0)
    cut = {slot.tensor for group in keep for slot in graph.groups[group].slots}
    assert tensor in cut, "what the attribute describes is cut"
    small = es.cut(model, graph, es.Plan(keep))
    assert small.espalier_proof == "float64"
    before, after = described(model), described(small)
    assert any(before[key] != after[key] for key in before)
    twice = es.trace(small, example)
    assert es.cut(small, twice, es.Plan(counted_plan(twice, twice.groups, seed=1))).espalier_proof == "float64"


def described(model: nn.Module) -> dict[str, Any]:
    names = ("in_features", "out_features", "in_channels", "out_channels", "num_features", "embedding_dim")
    return {
        f"{path}.{name}": getattr(module, name)
        for path, module in model.named_modules()
        for name in (*names, "hidden_size", "input_size", "normalized_shape", "num_parameters")
        if hasattr(module, name)
    }


def decided(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.head(y.relu() if net.one.out_features > 4 else y)


def test_a_decision_by_what_a_layer_says_is_a_condition() -> None:
    model, example = Net(decided, one=nn.Linear(4, 8), head=nn.Linear(8, 4)).eval(), torch.randn(2, 4)
    graph = es.trace(model, example)
    (condition,) = graph.conditions
    assert condition.text == "one.out_features > 4"
    assert graph.feasible({"one.weight:0": 2}) == {"one.weight:0": 5}
    small = es.cut(model, graph, es.Plan({"one.weight:0": tuple(range(5))}))
    assert small.one.out_features == 5
    with pytest.raises(es.core.ProofError):
        es.cut(model, graph, es.Plan({"one.weight:0": (0, 1)}))
