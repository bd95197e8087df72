"""Laws of recovery: what can be made up for is, what cannot is said, and nothing gets worse."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier import cut, trace
from espalier.core import ModelError, Plan
from espalier.recovery import Fit, least_squares, rescale_statistics
from espalier.recovery.sites import find_sites, scout
from espalier.recovery.walks import Walk

EXACT = Fit(ridges=(1e-13,), positions=10**6)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def batches(shape: tuple[int, ...], count: int = 4) -> list:
    return [(torch.randn(shape, dtype=torch.float64), None) for _ in range(count)]


def doubled(first: nn.Module, kept: tuple[int, ...] = (0, 2, 3, 6)) -> None:
    """Make every other unit of a layer a positive multiple of a kept one, which relu respects."""
    others = [unit for unit in range(8) if unit not in kept]
    with torch.no_grad():
        for one, other, factor in zip(kept, others, (0.5, 2.0, 1.5, 3.0), strict=True):
            for parameter in first.parameters():
                parameter[other] = factor * parameter[one]


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.first, self.rest = layers[0], nn.Sequential(*layers[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


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


class Residual(nn.Module):
    """Two linear branches on a stream; what the first one loses the second one sees."""

    def __init__(self) -> None:
        super().__init__()
        self.up1, self.down1 = nn.Linear(6, 8), nn.Linear(8, 6)
        self.up2, self.down2, self.norm = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down1(self.up1(x))
        return self.norm(self.down2(self.up2(x))) + x


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_branch_makes_up_for_its_shortcut(shortcuts):
    dense = Residual().double().eval()
    nn.init.uniform_(dense.norm.weight, 0.5, 2.0)
    data = batches((30, 6))
    graph = trace(dense, data[0][0])
    plan = Plan({"up1.weight:0": (0, 2, 5)})  # three of eight: the stream loses rank
    small = cut(dense, graph, plan)
    fit = Fit(ridges=(1e-13,), shortcuts=shortcuts)
    least_squares(dense, small, graph, plan, data, fit=fit)
    error = (small(data[0][0]) - dense(data[0][0])).abs().max().item()
    assert (error < 1e-5) == shortcuts


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


class ReadTwice(nn.Module):
    """Batch norm is not alone in reading the convolution: its running mean is no place for an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3, bias=False)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        return torch.cat([self.norm(x), x.T.T], 1)


def test_an_offset_that_others_would_miss_is_not_hidden_in_a_norm():
    dense = ReadTwice().double().eval()
    with torch.no_grad():
        dense.first.weight[4:] = 0.0
        dense.first.bias[4:] = 2.0
    data = batches((30, 4))
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2, 3)})
    small = cut(dense, graph, plan)
    least_squares(dense, small, graph, plan, data, fit=EXACT)
    assert torch.equal(small.norm.running_mean, dense.norm.running_mean)


class Added(nn.Module):
    """Something is added to a layer's output; ``write`` changes it on the way."""

    def __init__(self, write: bool) -> None:
        super().__init__()
        self.first, self.second, self.write = nn.Linear(4, 4), nn.Linear(4, 4), write

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        if self.write:
            x.view(-1).mul_(2.0)
        return y + x


@pytest.mark.parametrize("write", [True, False])
def test_what_is_written_into_on_the_way_is_no_shortcut(write):
    model = Added(write)
    sites, _ = find_sites(scout(model, lambda: model(torch.randn(2, 4))), scales=False)
    assert [site.addend is None for site in sites] == [True, write]


class Halves(nn.Module):
    """One half of an activation is added to what a layer makes of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.down(self.up(a).relu()) + b


def test_a_piece_of_an_activation_is_no_shortcut():
    dense = Halves().double().eval()
    doubled(dense.up)
    data = batches((30, 4))
    graph = trace(dense, data[0][0])
    plan = Plan({"up.weight:0": (0, 2, 3, 6)})
    small = cut(dense, graph, plan)
    least_squares(dense, small, graph, plan, data, fit=EXACT)
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)


# ---- what a fit must never do ---------------------------------------------------------------------------------------


def convolutional() -> tuple[nn.Module, nn.Module, object, Plan, list]:
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 4),
    )
    dense = Chain(*layers).eval()
    data = [(torch.randn(16, 3, 8, 8), None) for _ in range(4)]
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 2, 3, 6), "rest.2.weight:0": (0, 1, 2)})
    return dense, cut(dense, graph, plan), graph, plan, data


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


def test_an_error_in_the_middle_changes_nothing():
    dense, small, graph, plan, data = convolutional()
    before = copy.deepcopy(small.state_dict())

    def fails(module: nn.Module, args: tuple) -> None:
        if len(args[0]) == 7:
            raise RuntimeError("this batch is cursed")

    dense.rest[5].register_forward_pre_hook(fails)
    dense.train()
    with pytest.raises(RuntimeError, match="cursed"):
        least_squares(dense, small, graph, plan, [*data, (torch.randn(7, 3, 8, 8), None)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert dense.training and dense.rest[5].training


class Branching(nn.Module):
    """Batches of more than four samples take another layer."""

    def __init__(self, longer: bool) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.longer = longer

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if len(x) <= 4:
            return self.b(x)
        return self.a(x.tanh() if self.longer else x)


@pytest.mark.parametrize("longer", [True, False])
def test_a_forward_pass_that_goes_another_way_is_refused(longer):
    dense = Branching(longer).eval()
    graph = trace(dense, torch.randn(2, 4))
    plan = Plan({"first.weight:0": (0, 1, 2)})
    small = cut(dense, graph, plan)
    before = copy.deepcopy(small.state_dict())
    with pytest.raises(ModelError, match="another way"):
        least_squares(dense, small, graph, plan, [(torch.randn(n, 4), None) for n in (2, 6)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_mistakes_are_named():
    dense, small, graph, plan, data = convolutional()
    with pytest.raises(ModelError, match="1 batches to recover on"):
        least_squares(dense, small, graph, plan, data[:1])
    with pytest.raises(ModelError, match="not what this plan makes"):
        least_squares(dense, copy.deepcopy(dense), graph, plan, data)
    for bad in ({"positions": 0}, {"held_out_ratio": 1.0}, {"ridges": ()}, {"ridges": (0.0,)}):
        with pytest.raises(ModelError, match="Fit: "):
            Fit(**bad)


def test_two_batches_are_enough_whatever_share_is_held_out():
    dense, small, graph, plan, data = convolutional()
    report = least_squares(dense, small, graph, plan, data[:2], fit=Fit(held_out_ratio=0.9))
    assert any(line.ridge is not None for line in report)


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


def test_a_cut_network_that_calls_other_functions_is_left_alone():
    dense, small, graph, plan, data = convolutional()
    small.rest[2].register_forward_pre_hook(lambda module, args: (args[0] * 1.0,))
    before = copy.deepcopy(small.state_dict())
    report = least_squares(dense, small, graph, plan, data)
    assert len(report) == 3
    assert all("other functions" in line.reason for line in report)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_a_walk_drops_what_no_later_stop_wants():
    x = torch.ones(3)
    walk = Walk(lambda: x.sin().cos().tan().exp(), stops=(1, 2, 3), keep={0: 2, 1: 3}, after=False)
    kept = []
    while (stop := walk.advance()) is not None:
        kept.append((stop.name, sorted(stop.kept)))
    assert kept == [("cos", [0]), ("tan", [0, 1]), ("exp", [1])]
    assert walk.advance() is None


def test_walks_run_one_at_a_time_and_end():
    import threading

    before = threading.active_count()
    dense, small, graph, plan, data = convolutional()
    least_squares(dense, small, graph, plan, data)
    assert threading.active_count() == before
