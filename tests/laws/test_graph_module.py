"""The law of graph modules: the written record computes what the cut model computes, and goes into a ``.pt2``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

import espalier as es
from espalier.core import CutError, FileError, Plan

from ..patterns import BY_NAME, PATTERNS, Pattern
from ..patterns.masking import build, close, counted_plan, liven_, outputs

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.*weight_norm. is deprecated")


class ConvResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.group_norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu(self.norm(self.stem(x)))
        x = x + self.two(functional.relu_(self.one(x)))
        x = self.group_norm(self.depthwise(x))
        return self.head(x.mean((2, 3))), x.amax((1, 2, 3))


class Attention(nn.Module):
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 12)
        self.register_buffer("mask", torch.full((5, 5), float("-inf")).triu(1))
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, shift: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 3, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        x = self.norm(x + self.out(y.transpose(1, 2).reshape(b, n, -1)))
        return self.head(x) + shift * torch.arange(11, dtype=shift.dtype)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 6)
        self.lstm = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(16, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.lstm(self.inner(x))
        _, state = self.gru(x)
        return self.head(state[-1])


def networks() -> dict[str, tuple[nn.Module, Any]]:
    torch.manual_seed(0)
    made = {
        "conv": (ConvResidual(), torch.randn(2, 3, 6, 6)),
        "attention": (Attention(), {"tokens": torch.randint(11, (2, 5)), "shift": torch.randn(2, 5, 1)}),
        "recurrent": (Recurrent(), torch.randn(2, 5, 4)),
    }
    for model, example in made.values():
        model.double().eval()
        liven_(model)
        for key, value in example.items() if isinstance(example, dict) else ():
            example[key] = value.double() if value.is_floating_point() else value
    return {n: (m, e.double() if isinstance(e, Tensor) else e) for n, (m, e) in made.items()}


def tensors(example: Any) -> list[Tensor]:
    return [t for t in tree_leaves(example) if isinstance(t, Tensor)]


def fresh(example: Any) -> Any:
    """Return another input of the same shapes."""
    generator = torch.Generator().manual_seed(9)

    def other(t: Tensor) -> Tensor:
        return torch.randn(t.shape, dtype=t.dtype, generator=generator) if t.is_floating_point() else t.flip(0)

    return tree_map(lambda t: other(t) if isinstance(t, Tensor) else t, example)


@pytest.mark.parametrize("name", ["conv", "attention", "recurrent"])
def test_equals_the_cut_model_on_new_inputs(name: str, tmp_path: Path) -> None:
    model, example = networks()[name]
    graph = es.trace(model, example)
    plan = Plan(counted_plan(graph, graph.groups, seed=1), graph.fingerprint)
    assert plan.keep
    before = {n: t.clone() for n, t in model.state_dict().items()}
    module = es.to_graph_module(model, graph, plan)
    small, inputs = es.cut(model, graph, plan), fresh(example)
    assert isinstance(module, fx.GraphModule)
    assert close(outputs(module, tuple(tensors(inputs))), outputs(small, inputs), 1e-11)
    if isinstance(example, dict):
        assert close(outputs(module, inputs), outputs(small, inputs), 1e-11)
    assert close(outputs(copy.deepcopy(module), tuple(tensors(inputs))), outputs(small, inputs), 1e-11)
    cut_tensors = dict(small.state_dict())
    assert all(torch.equal(t, cut_tensors[n]) for n, t in module.state_dict().items() if "constant_" not in n)
    assert {n for n, _ in module.named_parameters()} == {n for n, _ in small.named_parameters()}
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in before.items())
    shared = {t.data_ptr() for t in model.state_dict().values()}
    assert not any(t.data_ptr() in shared for t in module.state_dict().values())


@pytest.mark.parametrize("name", ["conv", "attention", "recurrent"])
def test_goes_into_a_pt2_and_back(name: str, tmp_path: Path) -> None:
    model, example = networks()[name]
    graph = es.trace(model, example)
    module = es.to_graph_module(model, graph, Plan(counted_plan(graph, graph.groups, seed=2)))
    inputs = tuple(tensors(example))
    torch.export.save(torch.export.export(module, inputs), tmp_path / "small.pt2")
    loaded = torch.export.load(tmp_path / "small.pt2").module()
    other = tuple(tensors(fresh(example)))
    assert close(outputs(loaded, other), outputs(module, other), 1e-12)
    with pytest.raises(FileError, match=r"\.pt2"):
        es.save(module, tmp_path / "small.safetensors")


@pytest.mark.parametrize("name", ["conv", "attention", "recurrent"])
def test_without_a_plan_it_is_the_model(name: str) -> None:
    model, example = networks()[name]
    module = es.to_graph_module(model, es.trace(model, example))
    inputs = fresh(example)
    assert close(outputs(module, tuple(tensors(inputs))), outputs(model, inputs), 1e-11)


@pytest.mark.parametrize("name", ["conv", "attention", "recurrent"])
def test_trains(name: str) -> None:
    """Gradients are those of the cut model; an optimizer can be carried to it."""
    model, example = networks()[name]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    squared(call(model, example)).backward()
    optimizer.step()
    graph = es.trace(model, example)
    plan = Plan(counted_plan(graph, graph.groups, seed=3))
    module, small = es.to_graph_module(model, graph, plan), es.cut(model, graph, plan)
    for one in (module, small):
        squared(call(one, tensors(example), example)).backward()
        es.carry_optimizer(optimizer, model, one).step()
    expected = dict(small.named_parameters())
    for n, p in module.named_parameters():
        torch.testing.assert_close(p, expected[n], rtol=1e-9, atol=1e-11)


def squared(result: Any) -> Tensor:
    return torch.stack([t.pow(2).sum() for t in tree_leaves(result)]).sum()


def call(model: nn.Module, inputs: Any, example: Any = None) -> Any:
    if isinstance(inputs, list):
        inputs = tuple(inputs) if isinstance(model, fx.GraphModule) else example
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_every_pattern_is_written_down(pattern: Pattern) -> None:
    model, example = build(pattern)
    graph = es.trace(model, example)
    plan = Plan(counted_plan(graph, graph.groups, seed=len(pattern.name)), graph.fingerprint)
    expected = outputs(es.cut(model, graph, plan, prove=False), example)
    module = es.to_graph_module(model, graph, plan)
    with torch.no_grad():
        found = module(*[t.clone() for t in tensors(example)])
    assert close([found] if isinstance(found, Tensor) else list(found), expected, 1e-10)


@pytest.mark.parametrize("names", [("graph", "meta", "scale"), ("one", "two", "constant_0")])
def test_names_that_a_graph_module_needs_itself(names: tuple[str, str, str]) -> None:
    class Awkward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(names[0], nn.Linear(4, 6))
            self.add_module(names[1], nn.Linear(6, 2))
            self.register_parameter(names[2], nn.Parameter(torch.rand(6)))

        def forward(self, x: Tensor) -> Tensor:
            first, second, scale = (getattr(self, name) for name in names)
            return second(first(x) * scale + torch.tensor([1.0, 2, 3]).sum())

    model, x = Awkward(), torch.randn(3, 4)
    graph = es.trace(model, x)
    plan = Plan({f"{names[0]}.weight:0": (0, 4, 5)})
    module = es.to_graph_module(model, graph, plan)
    assert close(outputs(module, x), outputs(es.cut(model, graph, plan), x), 1e-6)
    assert {n for n, _ in module.named_parameters()} == {f"model.{n}" for n, _ in model.named_parameters()}


def test_another_model_is_refused() -> None:
    model, example = build(BY_NAME["conv2d"])
    graph = es.trace(model, example)
    small = es.cut(model, graph, Plan(counted_plan(graph, graph.groups, seed=0)))
    with pytest.raises(CutError, match="not the traced one"):
        es.to_graph_module(small, graph)
