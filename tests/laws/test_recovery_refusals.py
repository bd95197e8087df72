"""Laws of recovery: no layer gets worse, and what cannot be fitted says why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier import cut, trace
from espalier.core import ModelError, Plan
from espalier.recovery import Fit, least_squares, rescale_statistics

from .recovery_cases import batches, convolutional

pytestmark = pytest.mark.usefixtures("seeded")


def test_no_layer_gets_worse_on_held_out_batches_and_the_result_is_the_same_every_time():
    dense, small, graph, plan, data = convolutional()
    other = copy.deepcopy(small)
    state = copy.deepcopy(dense.state_dict())
    report = least_squares(dense, small, graph, plan, data)
    assert [line.weight for line in report] == ["first.weight", "rest.2.weight", "rest.5.weight"]
    assert all(line.after <= line.before for line in report)
    assert sum(line.ridge is not None for line in report) == 2
    again = least_squares(dense, other, graph, plan, data)
    assert [line.ridge for line in again] == [line.ridge for line in report]
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), other.state_dict().values(), strict=True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())
    assert not any(module.training for module in small.modules())


def test_two_batches_are_enough_whatever_share_is_held_out():
    dense, small, graph, plan, data = convolutional()
    report = least_squares(dense, small, graph, plan, data[:2], fit=Fit(held_out_ratio=0.9))
    assert any(line.ridge is not None for line in report)


def test_mistakes_are_named():
    dense, small, graph, plan, data = convolutional()
    with pytest.raises(ModelError, match="1 batches to recover on"):
        least_squares(dense, small, graph, plan, data[:1])
    with pytest.raises(ModelError, match="not what this plan makes"):
        least_squares(dense, copy.deepcopy(dense), graph, plan, data)
    for bad in ({"positions": 0}, {"held_out_ratio": 1.0}, {"ridges": ()}, {"ridges": (0.0,)}):
        with pytest.raises(ModelError, match="Fit: "):
            Fit(**bad)


def test_a_group_with_a_hidden_statistic_is_named():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(functional.layer_norm(self.first(x), self.first.weight.shape[:1]))

    dense = Net().double().eval()
    data = batches((30, 4))
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2, 3, 4)})
    small = cut(dense, graph, plan)
    (line,) = rescale_statistics(dense, small, graph, plan, data)
    assert (line.weight, line.ridge) == ("first.weight:0", None)
    assert "no norm with a weight" in line.reason


def test_layers_that_cannot_be_fitted_say_why():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.attention = nn.Embedding(11, 8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            x = x + self.attention(x, x, x, need_weights=False)[0]
            x = x + self.down(self.up(x).relu())
            return functional.linear(x, self.embed.weight)

    dense = Net().eval()
    data = [(torch.randint(11, (4, 6)), None) for _ in range(3)]
    graph = trace(dense, data[0][0])
    counts = graph.feasible({name: max(2, size // 2) for name, size in graph.sizes.items()})
    plan = Plan({name: tuple(range(counts[name])) for name, size in graph.sizes.items() if counts[name] < size})
    small = cut(dense, graph, plan, prove=False)
    reasons = {line.weight: line.reason for line in least_squares(dense, small, graph, plan, data)}
    assert "multi_head_attention_forward" in reasons["attention.in_proj_weight"]
    assert "embedding" in reasons["embed.weight"]
    assert reasons["down.weight"] == ""


def test_a_layer_that_reads_too_much_stays():
    dense, small, graph, plan, data = convolutional()
    report = {line.weight: line for line in least_squares(dense, small, graph, plan, data, fit=Fit(most_features=40))}
    assert "reads 48 features" in report["rest.5.weight"].reason
    assert report["rest.2.weight"].reason == ""


class Experts(nn.Module):
    """Three matrices in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.experts = nn.Linear(4, 8), nn.Parameter(torch.randn(3, 8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x).relu().expand(3, -1, -1) @ self.experts).sum(0)


def test_a_stack_of_matrices_is_no_layer():
    dense = Experts().eval()
    data = [(torch.randn(9, 4), None) for _ in range(2)]
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2)})
    report = least_squares(dense, cut(dense, graph, plan), graph, plan, data)
    assert {line.weight: line.reason for line in report}["experts"] == "it is not one matrix"
