"""Values that the model's Python looks at, or takes out of PyTorch: one path was recorded, and it is said which."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.cli.trace import to_data

from ..patterns import BY_NAME
from ..patterns.base import Net


def branch_on_item(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.two(y.relu()) if y.mean().item() > -100 else net.two(y)


def branch_on_bool(net: Net, x: Tensor) -> Tensor:
    y = net.one(x)
    return net.two(y.relu()) if (y > -100).all() else net.two(y)


def picked_rows(net: Net, x: Tensor) -> Tensor:
    return net.two(net.one(x[x[:, 0] > -100]).relu())


def through_numpy(net: Net, x: Tensor) -> Tensor:
    y = torch.from_numpy(np.tanh(net.one(x).detach().numpy()))
    return net.two(y)


def through_array(net: Net, x: Tensor) -> Tensor:
    y = torch.as_tensor(np.asarray(net.one(x).detach()) * 2)
    return net.two(y)


def through_lists(net: Net, x: Tensor) -> Tensor:
    return net.two(torch.tensor(net.one(x).tolist(), dtype=x.dtype))


def constants_only(net: Net, x: Tensor) -> Tensor:
    scale = torch.linspace(1, 2, 3)[1].item()
    return net.two(net.one(x).relu() * scale)


def made(run: Callable[..., Any]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Net(run, one=nn.Linear(4, 8), two=nn.Linear(8, 4)).eval(), torch.randn(3, 4)


def line_of(run: Callable[..., Any], text: str) -> str:
    lines, first = inspect.getsourcelines(run)
    return f"test_looks.py:{first + next(i for i, line in enumerate(lines) if i and text in line)}"


@pytest.mark.parametrize(
    ("run", "text"),
    [(branch_on_item, "item"), (branch_on_bool, "all"), (picked_rows, "> -100"), (through_numpy, "numpy()")],
)
def test_a_look_at_values_is_noted_with_its_line(run: Callable[..., Any], text: str) -> None:
    graph = es.trace(*made(run))
    (note,) = graph.notes
    assert "looks at values" in note
    assert to_data(graph)["notes"] == [note]
    assert line_of(run, text) in note
    for name in ("one", *graph.groups):
        assert line_of(run, text) in graph.explain(name)


def test_values_that_no_input_changes_are_not_noted() -> None:
    assert es.trace(*made(constants_only)).notes == ()


@pytest.mark.parametrize(
    ("run", "text"), [(through_numpy, "numpy()"), (through_array, "asarray"), (through_lists, "tolist")]
)
def test_what_leaves_pytorch_is_frozen_with_its_line(run: Callable[..., Any], text: str) -> None:
    graph = es.trace(*made(run))
    assert not graph.groups, "the units between are not known to be the same on both sides"
    (axis,) = (one for one in graph.frozen if (one.tensor, one.dim) == ("one.weight", 0))
    assert "leave PyTorch" in axis.reason
    assert line_of(run, text) in axis.source


def test_groups_beside_a_round_trip_are_cut_and_proved() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.one = nn.Linear(4, 12), nn.Linear(12, 8)
            self.two, self.after = nn.Linear(8, 12), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.from_numpy(np.tanh(self.one(self.before(x).relu()).detach().numpy()))
            return self.after(self.two(y).relu())

    torch.manual_seed(0)
    model, example = Beside().eval(), torch.randn(3, 4)
    graph = es.trace(model, example)
    assert set(graph.groups) == {"before.weight:0", "two.weight:0"}
    small = es.cut(model, graph, es.Plan(dict.fromkeys(graph.groups, (0, 3, 5))))
    assert small.espalier_proof == "float64"
    with pytest.raises(es.core.CutError, match="leave PyTorch"):
        es.to_graph_module(model, graph)


def test_an_example_with_too_few_tokens_for_the_experts_asks_for_a_larger_one() -> None:
    torch.manual_seed(0)
    model = BY_NAME["experts_top"].make().eval()
    few, many = es.trace(model, torch.randn(1, 1, 4)), es.trace(model, torch.randn(4, 16, 4))
    (note,) = [note for note in few.notes if "larger example" in note]
    assert "experts." in note
    assert not [note for note in many.notes if "larger example" in note]


class Visited(nn.Module):
    """Each row visits one expert; experts without rows do not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y, chosen = self.stem(x), x.argmax(-1)
        out = torch.zeros_like(y)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if rows.numel():
                out.index_add_(0, rows, expert(y[rows]).relu())
        return self.head(out)


def test_experts_that_other_values_reach_ask_for_a_larger_example() -> None:
    torch.manual_seed(0)
    model, example = Visited().eval(), torch.tensor([[9.0, 0, 0, 0], [9.0, 0, 0, 0]])
    graph = es.trace(model, example)
    assert any("experts.1" in note and "larger example" in note for note in graph.notes)
    graph = es.trace(model, example * 0.01)  # the proof's noise sends them elsewhere
    with pytest.raises(es.core.ProofError, match=r"experts\.\d.*Give a larger example"):
        es.cut(model, graph, es.Plan({next(iter(graph.groups)): (0, 1, 2)}))
    graph = es.trace(model, torch.randn(64, 4))
    assert es.cut(model, graph, es.Plan({next(iter(graph.groups)): (0, 1, 2)})).espalier_proof == "float64"


class Grouped(nn.Module):
    """Experts as one grouped product over rows sorted by expert (Mixtral in transformers)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.head = nn.Linear(4, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.up, self.down = nn.Parameter(torch.randn(4, 16, 32) / 4), nn.Parameter(torch.randn(4, 32, 16) / 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        chosen = self.gate(y).argmax(-1)
        order = chosen.argsort()
        ends = torch.histc(chosen.float(), 4, 0, 3).cumsum(0, dtype=torch.int32)
        h = torch._grouped_mm(torch._grouped_mm(y[order], self.up, offs=ends).relu(), self.down, offs=ends)
        return self.head(y + h[order.argsort()])


def test_a_grouped_product_keeps_the_ends_of_its_groups() -> None:
    torch.manual_seed(0)
    model, example = Grouped().eval(), torch.randn(32, 4)
    graph = es.trace(model, example)
    keep = {name: tuple(range(0, size, 2)) for name, size in graph.sizes.items() if size in (16, 32)}
    assert len(keep) == 2
    assert es.cut(model, graph, es.Plan(keep)).espalier_proof == "float32"
