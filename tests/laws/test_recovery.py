"""Laws of recovery: what the kept units can make up for is made up for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier import cut, trace
from espalier.core import Plan
from espalier.recovery import least_squares, rescale_statistics

from .recovery_cases import CLOSE, EXACT, Chain, batches, doubled

pytestmark = pytest.mark.usefixtures("seeded")


class Functional(nn.Module):
    """No modules behind the first: F.linear, matmul, addmm and conv2d on parameters of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.a, self.b = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8, 5))
        self.c, self.d = nn.Parameter(torch.randn(8, 3)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.first(x).relu()
        return functional.linear(x, self.a), x @ self.b, torch.addmm(self.d, x, self.c)


class Twice(nn.Module):
    """One layer that is applied to two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(self.shared(self.shared(x).relu() * 0 + x) + self.shared(x))


EXACTLY = {
    "linear": (lambda: Chain(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (30, 4)),
    "conv": (lambda: Chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)), (6, 3, 8, 8)),
    "conv_bn": (
        lambda: Chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)),
        (6, 3, 8, 8),
    ),
    "transposed": (lambda: Chain(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)), (6, 3, 8, 8)),
    "functional": (Functional, (30, 4)),
    "shared": (Twice, (30, 4)),
}


@pytest.mark.parametrize("name", EXACTLY)
def test_units_that_are_multiples_of_kept_ones_are_not_missed(name):
    make, shape = EXACTLY[name]
    dense = make().double().eval()
    doubled(dense.first)
    data = batches(shape)
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 2, 3, 6)})
    small = cut(dense, graph, plan)
    x = torch.randn(shape, dtype=torch.float64)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(small(x), dense(x), **CLOSE)
    least_squares(dense, small, graph, plan, data, fit=EXACT)
    torch.testing.assert_close(small(x), dense(x), **CLOSE)


def test_depthwise_and_grouped_layers_on_the_way():
    """A depthwise layer keeps multiples; the grouped one behind it has a multiple in each of its groups."""
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 6, 3, groups=2)
    dense = Chain(*layers).double().eval()
    with torch.no_grad():
        for one, other in ((0, 1), (2, 3), (4, 5), (6, 7)):
            for tensor in (dense.first.weight, dense.first.bias, dense.rest[1].weight):
                tensor[other] = 2 * tensor[one]
    data = batches((6, 3, 10, 10))
    graph = trace(dense, data[0][0])
    name = next(n for n, group in graph.groups.items() if any(slot.tensor == "first.weight" for slot in group.slots))
    keep = (0, 2, 4, 6) if graph.groups[name].size == 8 else (0, 2)  # one group of 8, or 2 groups of 4 inside
    plan = Plan({name: keep})
    small = cut(dense, graph, plan)
    assert small.first.out_channels == 4
    report = least_squares(dense, small, graph, plan, data, fit=EXACT)
    assert {line.weight: line.reason for line in report}["rest.2.weight"] == ""
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)


def test_a_depthwise_layer_makes_up_for_its_own_input():
    """A scale lost before a depthwise layer comes back in it, channel by channel."""
    layers = nn.Conv2d(3, 8, 1, bias=False), nn.Conv2d(8, 6, 1, bias=False), nn.Conv2d(6, 6, 3, groups=6, bias=False)
    dense = Chain(*layers, nn.Conv2d(6, 2, 1)).double().eval()
    with torch.no_grad():
        dense.first.weight[4:] = dense.first.weight[:4]
        dense.rest[0].weight[:, 4:] = dense.rest[0].weight[:, :4]
    data = batches((6, 3, 6, 6))
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2, 3)})
    small = cut(dense, graph, plan)
    with torch.no_grad():  # what the fit of the layer before must not do here: frozen, and wrong by a factor a channel
        small.rest[0].weight.copy_(
            dense.rest[0].weight[:, :4] * torch.tensor([2.0, 0.5, 3, 1, 5, 2])[:, None, None, None]
        )
        small.rest[0].weight *= 2
        dense.rest[0].weight.requires_grad_(False)
        small.rest[0].weight.requires_grad_(False)
    # both halves of the kernel were equal, so doubling gives the dense output times the factor
    report = {line.weight: line for line in least_squares(dense, small, graph, plan, data, fit=EXACT)}
    assert report["rest.0.weight"].reason == "it is frozen, and others are not"
    assert report["rest.1.weight"].after < 1e-9


def test_a_constant_unit_goes_into_the_running_mean():
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False), nn.BatchNorm2d(4)
    dense = Chain(*layers).double().eval()
    with torch.no_grad():
        dense.first.weight[4:] = 0.0
        dense.first.bias[4:] = torch.rand(4).double() + 1.0
    data = batches((6, 3, 8, 8))
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2, 3)})
    small = cut(dense, graph, plan)
    least_squares(dense, small, graph, plan, data, fit=EXACT)
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.heads, self.head_dim = 2, 4

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_rows_that_the_cut_rescaled_stay_rescaled():
    """Head dimensions whose keys are zero can go, and W_q makes up for 1/sqrt(head_dim): nothing is left to fit."""
    dense = Attention().double().eval()
    data = batches((3, 5, 8))
    graph = trace(dense, data[0][0])
    with torch.no_grad():
        for layer, name in ((dense.k, "q.weight:0.1"), (dense.v, "v.weight:0.1")):
            rows = next(slot.positions[2:].flatten() for slot in graph.groups[name].slots)
            layer.weight[rows] = 0.0
            layer.bias[rows] = 0.0
    plan = Plan({"q.weight:0.1": (0, 1), "v.weight:0.1": (0, 1)})
    small = cut(dense, graph, plan)
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)
    least_squares(dense, small, graph, plan, data)
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)


class HandNorm(nn.Module):
    """An RMS norm as language models write it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(8) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-12))


@pytest.mark.parametrize("norm", [HandNorm, lambda: nn.RMSNorm(8, eps=1e-12)])
def test_channels_that_are_zero_cost_a_norm_one_factor(norm):
    dense = Chain(nn.Linear(4, 8), norm(), nn.Linear(8, 3)).double().eval()
    with torch.no_grad():
        dense.first.weight[5:] = 0.0
        dense.first.bias[5:] = 0.0
    data = batches((30, 4))
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2, 3, 4)})
    assert graph.groups["first.weight:0"].statistics
    small = cut(dense, graph, plan)
    last = small.rest[1].weight.clone()
    rescale_statistics(dense, small, graph, plan, data, fit=EXACT)
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)
    assert torch.equal(small.rest[1].weight, last)
