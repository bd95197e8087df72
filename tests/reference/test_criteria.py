"""Every criterion against a brute-force computation, weight by weight, on a net small enough to write down."""

from __future__ import annotations

import math
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from espalier import criteria
from espalier.core import Group, ModelError, Role, Slot, UnknownNameError

COLUMNS = np.arange(4)[:, None]


class Net(nn.Module):
    """Conv -> batch norm -> flatten -> linear -> relu -> linear: two groups, one of which owns nine columns a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.mid = nn.Linear(4 * 9, 6)
        self.head = nn.Linear(6, 3)
        self.twin = self.conv  # a second name of the same parameters

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mid(self.bn(self.conv(x)).flatten(1)).relu())


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net().double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model.bn.running_mean.normal_()
    return model


@pytest.fixture
def graph(net: Net) -> SimpleNamespace:
    channel, hidden = np.arange(4)[:, None], np.arange(6)[:, None]
    spread = np.arange(36).reshape(4, 9)
    groups = {
        "conv.weight:0": Group(
            "conv.weight:0",
            4,
            (
                Slot("conv.weight", 0, channel, Role.PRODUCER),
                Slot("conv.bias", 0, channel, Role.SHIFT),
                Slot("bn.weight", 0, channel, Role.SCALE),
                Slot("bn.bias", 0, channel, Role.SHIFT),
                Slot("bn.running_mean", 0, channel, Role.SHIFT),
                Slot("mid.weight", 1, spread, Role.READER),
            ),
        ),
        "mid.weight:0": Group(
            "mid.weight:0",
            6,
            (
                Slot("mid.weight", 0, hidden, Role.PRODUCER),
                Slot("mid.bias", 0, hidden, Role.SHIFT),
                Slot("head.weight", 1, hidden, Role.READER),
            ),
        ),
    }
    return SimpleNamespace(groups=groups, shapes={n: tuple(t.shape) for n, t in net.state_dict().items()})


def weights(tensors: dict, group: Group, unit: int) -> list[list[float]]:
    """Return the numbers of one unit, slot by slot, one position at a time; running statistics are no weights."""
    found = []
    for slot in group.slots:
        if "running" not in slot.tensor:
            dim = tensors[slot.tensor]
            found.append([float(v) for p in slot.positions[unit] for v in dim.select(slot.dim, int(p)).flatten()])
    return found


def brute(tensors: dict, graph: SimpleNamespace, score) -> dict[str, list[float]]:
    return {
        name: [score(weights(tensors, group, unit)) for unit in range(group.size)]
        for name, group in graph.groups.items()
    }


def named(net: Net) -> dict:
    return {name: parameter.detach() for name, parameter in net.named_parameters()}


def check_equal(scores: dict, expected: dict) -> None:
    assert scores.keys() == expected.keys()
    for name, numbers in scores.items():
        torch.testing.assert_close(numbers, torch.tensor(expected[name], dtype=numbers.dtype), rtol=1e-6, atol=1e-9)


SIZES = {1: lambda w: sum(map(abs, w)), 2: lambda w: sum(v * v for v in w), math.inf: lambda w: max(map(abs, w))}
OVER_SLOTS = {"sum": sum, "mean": lambda m: sum(m) / len(m), "max": max, "first": lambda m: m[0]}


@pytest.mark.parametrize("norm", SIZES)
@pytest.mark.parametrize("reduce", OVER_SLOTS)
def test_magnitude(net, graph, norm, reduce):
    scores = criteria.magnitude(net, graph, norm=norm, reduce=reduce, normalise="none")
    check_equal(scores, brute(named(net), graph, lambda w: OVER_SLOTS[reduce]([SIZES[norm](s) for s in w])))


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        ("none", lambda m, size: m),
        ("mean", lambda m, size: m / m.mean()),
        ("max", lambda m, size: m / m.max()),
        ("sum", lambda m, size: m / m.sum()),
        ("standardise", lambda m, size: (m - m.mean()) / m.std()),
        ("size", lambda m, size: m / size),
    ],
)
def test_normalisers(net, graph, normalise, expected):
    bare = criteria.magnitude(net, graph, normalise="none")
    sizes = {"conv.weight:0": 18 + 1 + 1 + 1 + 9 * 6, "mid.weight:0": 36 + 1 + 3}
    for name, scores in criteria.magnitude(net, graph, normalise=normalise).items():
        np.testing.assert_allclose(scores.numpy(), expected(bare[name].numpy(), sizes[name]), rtol=1e-9)


def test_magnitude_of_a_zero_group_is_zero(net, graph):
    for name in ("mid", "head"):
        nn.init.zeros_(getattr(net, name).weight)
        nn.init.zeros_(getattr(net, name).bias)
    for normalise in ("mean", "max", "sum", "standardise", "size"):
        assert criteria.magnitude(net, graph, normalise=normalise)["mid.weight:0"].tolist() == [0.0] * 6


def test_bn_scale(net, graph):
    scores = criteria.bn_scale(net, graph)
    gamma = net.bn.weight.detach().abs()
    lengths = torch.tensor(brute(named(net), graph, lambda w: math.sqrt(sum(map(SIZES[2], w))))["mid.weight:0"])
    fallback = lengths.double() / lengths.double().mean() * gamma.mean()
    check_equal(scores, {"conv.weight:0": gamma.tolist(), "mid.weight:0": fallback.tolist()})


def test_bn_scale_averages_the_scales_of_a_unit(net, graph):
    group = graph.groups["conv.weight:0"]
    pairs = Slot("bn.weight", 0, np.array([[0, 1], [2, 3]]), Role.SCALE)
    graph.groups = {"pairs": Group("pairs", 2, (pairs,)), group.name: group}
    gamma = net.bn.weight.detach().abs()
    torch.testing.assert_close(criteria.bn_scale(net, graph)["pairs"], gamma.reshape(2, 2).mean(1))


def test_bn_scale_without_any_scale_says_so(net, graph):
    del graph.groups["conv.weight:0"]
    with pytest.raises(ModelError, match="no group has a normalisation scale"):
        criteria.bn_scale(net, graph)


def test_geometric_median(net, graph):
    expected = {}
    for name, group in graph.groups.items():
        units = [sum(weights(named(net), group, u), []) for u in range(group.size)]
        expected[name] = [sum(math.dist(a, b) for b in units) for a in units]
    check_equal(criteria.geometric_median(net, graph, normalise="none"), expected)


def test_geometric_median_in_blocks(net, graph, monkeypatch):
    whole = criteria.geometric_median(net, graph)
    monkeypatch.setattr(sys.modules["espalier.criteria.geometric_median"], "_BLOCK_ELEMENTS", 12)
    for name, scores in criteria.geometric_median(net, graph).items():
        torch.testing.assert_close(scores, whole[name])


def test_lamp(net, graph):
    energy = brute(named(net), graph, lambda w: sum(map(SIZES[2], w)))
    expected = {name: [m / sum(v for v in ms if v >= m) for m in ms] for name, ms in energy.items()}
    check_equal(criteria.lamp(net, graph), expected)


def test_lamp_shares_the_denominator_between_equals(net, graph):
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    check_equal(criteria.lamp(net, graph), {"conv.weight:0": [0.25] * 4, "mid.weight:0": [1 / 6] * 6})


def test_random_repeats_with_its_seed_and_leaves_the_global_state(net, graph):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (criteria.random(net, graph, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in graph.groups)
    assert [len(scores) for scores in one.values()] == [4, 6]


def test_reverse_negates_takes_options_and_pickles(net, graph):
    turned = pickle.loads(pickle.dumps(criteria.reverse(criteria.magnitude)))
    for name, scores in turned(net, graph, norm=1).items():
        assert torch.equal(scores, -criteria.magnitude(net, graph, norm=1)[name])


def test_only_parameters_are_weights(net, graph):
    before = criteria.magnitude(net, graph)
    net.bn.running_mean.fill_(100.0)
    after = criteria.magnitude(net, graph)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_slices_are_units_by_rest(net, graph):
    tensors = dict(net.named_parameters(remove_duplicate=False))
    found = {
        slot.tensor: tuple(matrix.shape) for slot, matrix in criteria.slices(tensors, graph.groups["conv.weight:0"])
    }
    expected = {"conv.weight": (4, 18), "conv.bias": (4, 1), "bn.weight": (4, 1), "bn.bias": (4, 1)}
    assert found == {**expected, "mid.weight": (4, 54)}


def test_a_tensor_may_go_by_its_second_name(net, graph):
    expected = criteria.magnitude(net, graph)["conv.weight:0"]
    group = graph.groups["conv.weight:0"]
    slots = tuple(Slot(s.tensor.replace("conv.", "twin."), s.dim, s.positions, s.role) for s in group.slots)
    graph.groups["conv.weight:0"] = Group(group.name, group.size, slots)
    assert torch.equal(criteria.magnitude(net, graph)["conv.weight:0"], expected)


def test_a_group_without_parameters_scores_ones(net, graph):
    graph.groups["bn.running_mean:0"] = Group(
        "bn.running_mean:0", 4, (Slot("bn.running_mean", 0, np.arange(4)[:, None], Role.SHIFT),)
    )
    for name in ("magnitude", "geometric_median", "lamp"):
        assert len(set(criteria.named(name)(net, graph)["bn.running_mean:0"].tolist())) == 1


def test_another_model_is_refused(net, graph):
    net.head = nn.Linear(5, 3)
    with pytest.raises(ModelError, match=r"'head.weight' is \(3, 5\), traced as \(3, 6\)"):
        criteria.magnitude(net, graph)
    with pytest.raises(ModelError, match="not the one that was traced"):
        criteria.magnitude(nn.Linear(2, 2), graph)
    with pytest.raises(ModelError, match="meta device"):
        criteria.magnitude(Net().to("meta"), graph)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": 3}, "unknown norm '3'"),
        ({"reduce": "means"}, "unknown reduction 'means'. Did you mean 'mean'"),
        ({"normalise": "standardize"}, "Did you mean 'standardise'"),
    ],
)
def test_unknown_options_are_named(net, graph, options, message):
    with pytest.raises(UnknownNameError, match=message):
        criteria.magnitude(net, graph, **options)


def test_half_precision_does_not_overflow(net, graph):
    half = Net().half()
    for parameter in half.parameters():
        nn.init.constant_(parameter, 300.0)
    scores = criteria.magnitude(half, graph, normalise="none")
    assert scores["mid.weight:0"].tolist() == [40 * 300.0**2] * 6


def test_registry_names_the_nearest():
    assert all(criteria.named(name) is function for name, function in criteria.CRITERIA.items())
    with pytest.raises(UnknownNameError, match="Did you mean 'magnitude'"):
        criteria.named("magnitud")
