"""Group Fisher against its formulas: masks of one number a sample and unit, written into the networks by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.graph.probes.joined import joined
from espalier.methods.pruning.group_fisher import GroupFisher
from espalier.zoo.sources.torchvision_operators import declare

from .method_context import context, goal

SAMPLES = 5
Mask = Callable[[str, Tensor], Tensor]  # (group, activation) -> activation * mask


def unmasked(group: str, x: Tensor) -> Tensor:
    return x


def norm(channels: int) -> nn.BatchNorm2d:
    one = nn.BatchNorm2d(channels)
    nn.init.uniform_(one.weight, 0.5, 1.5)
    nn.init.uniform_(one.bias, -0.5, 0.5)
    return one


class Residual(nn.Module):
    """Two blocks on one stream, read by both blocks and by the head."""

    GROUPS = {"stream": "stem.weight:0", "first": "a1.weight:0", "second": "b1.weight:0"}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.n0 = nn.Conv2d(2, 6, 3, padding=1), norm(6)
        self.a1, self.na, self.a2 = nn.Conv2d(6, 4, 3, padding=1), norm(4), nn.Conv2d(4, 6, 3, padding=1)
        self.b1, self.nb, self.b2 = nn.Conv2d(6, 5, 3, padding=1), norm(5), nn.Conv2d(5, 6, 3, padding=1)
        self.head = nn.Linear(6 * 16, 3)

    def forward(self, x: Tensor, mask: Mask = unmasked) -> Tensor:
        x = torch.relu(self.n0(self.stem(x)))
        x = torch.relu(x + self.a2(mask("first", torch.relu(self.na(self.a1(mask("stream", x)))))))
        x = torch.relu(x + self.b2(mask("second", torch.relu(self.nb(self.b1(mask("stream", x)))))))
        return self.head(mask("stream", x).flatten(1))


class Depthwise(nn.Module):
    """An inverted bottleneck."""

    GROUPS = {"stream": "stem.weight:0", "wide": "up.weight:0"}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up, self.n1 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 8, 1), norm(8)
        self.depth, self.n2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), norm(8)
        self.down, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Mask = unmasked) -> Tensor:
        x = functional.relu6(self.stem(x))
        wide = functional.relu6(self.n2(self.depth(functional.relu6(self.n1(self.up(mask("stream", x)))))))
        x = x + self.down(mask("wide", wide))
        return self.head(mask("stream", x.mean((2, 3))))


class Grouped(nn.Module):
    """A convolution with three groups of two channels: whole groups are units."""

    GROUPS = {"groups": "wide.weight:0.0"}

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.n1 = nn.Conv2d(2, 6, 1), norm(6)
        self.middle, self.narrow, self.head = (
            nn.Conv2d(6, 6, 3, padding=1, groups=3),
            nn.Conv2d(6, 4, 1),
            nn.Linear(4, 3),
        )

    def forward(self, x: Tensor, mask: Mask = unmasked) -> Tensor:
        x = torch.relu(self.middle(torch.relu(self.n1(self.wide(x)))))
        return self.head(torch.relu(self.narrow(mask("groups", x))).mean((2, 3)))


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(SAMPLES, 2, 4, 4), torch.randint(3, (SAMPLES,))


def by_hand(model: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return sum_n (sum_x dL_n/dmask)^2 of each group, from masks that all coupled readings share."""
    masks: dict[str, Tensor] = {}

    def mask(group: str, activation: Tensor) -> Tensor:
        units = es.trace(model, x).groups[model.GROUPS[group]].size
        wanted = masks.setdefault(group, torch.ones(len(activation), units, requires_grad=True))
        channels = wanted.repeat_interleave(activation.shape[1] // units, 1)
        return activation * channels.reshape(*channels.shape, *[1] * (activation.dim() - 2))

    functional.cross_entropy(model(x, mask), y, reduction="sum").backward()
    return {model.GROUPS[group]: one.grad.double().square().sum(0) for group, one in masks.items()}  # type: ignore[union-attr]


@pytest.mark.parametrize("network", [Residual, Depthwise, Grouped])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_sums_are_those_of_masks_written_by_hand(network: type, training: bool) -> None:
    torch.manual_seed(0)
    model, (x, y) = network().train(training), data()
    expected = by_hand(model, x, y)
    graph = es.trace(model, x)
    method = GroupFisher()
    state = method.start(model, graph, context(goal(graph.cost().macs // 2)))
    for _ in range(2):  # two batches add up
        model.zero_grad()
        outputs = model(x)
        method.penalty(state, (x, y), outputs)
        functional.cross_entropy(outputs, y).backward()
    state.drain()
    state.close()
    for name, one in expected.items():
        torch.testing.assert_close(state.sums[name], 2 * one, rtol=1e-4, atol=1e-9)
    assert set(expected) <= set(state.sums)


def test_what_a_removal_frees_is_the_papers() -> None:
    """dM = h w of each parent; dC = c_o h w k k in the layer and c_i h w k k in the parent, with the counts of now."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.Conv2d(5, 3, 3))
    graph = es.trace(model, torch.randn(2, 2, 8, 8))
    aim = context(goal(graph.cost().macs // 2))
    first, second = list(graph.groups)
    counts = {first: 6, second: 4}
    freed = {kind: GroupFisher(normalise=kind).start(model, graph, aim) for kind in ("memory", "macs", "none")}
    assert freed["memory"]._freed(counts, first) == 64 and freed["memory"]._freed(counts, second) == 64
    assert freed["macs"]._freed(counts, first) == 4 * 64 + 2 * 64 * 9  # four units are left in the next layer
    assert freed["macs"]._freed(counts, second) == 3 * 36 * 9 + 6 * 64
    assert freed["none"]._freed(counts, first) == 1
    for state in freed.values():
        state.close()


@pytest.mark.parametrize(("kind", "expected"), [("none", "b"), ("memory", "a")])
def test_the_lowest_normalised_unit_goes_and_sums_begin_anew(kind: str, expected: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 1, stride=4), nn.Conv2d(5, 3, 1))
    graph = es.trace(model, torch.randn(2, 2, 8, 8))
    first, second = list(graph.groups)
    method = GroupFisher(every_steps=1, normalise=kind)  # type: ignore[arg-type]
    state = method.start(model, graph, context(goal(graph.cost().macs // 2), steps=1000))
    state.sums[first].copy_(torch.tensor([9.0, 8.0, 3.0, 7.0, 9.0, 9.0]))  # each frees 64 elements
    state.sums[second].copy_(torch.tensor([5.0, 1.0, 9.0, 9.0, 9.0]))  # each frees 4
    assert method.step(state) is None
    assert state.gone == ({first: {2}} if expected == "a" else {second: {1}})
    group, unit = (first, 2) if expected == "a" else (second, 1)
    gate = state.gates[group]
    assert float(gate[unit]) == 0.0 and float(gate.sum()) == len(gate) - 1
    assert all(float(total.sum()) == 0 for total in state.sums.values())
    x = torch.randn(3, 2, 8, 8)
    gated = model(x)
    plan = method.stop(state)
    assert plan is not None and plan.keep == {group: tuple(u for u in range(len(gate)) if u != unit)}
    torch.testing.assert_close(es.cut(model, graph, plan)(x), gated)


def test_internal_leaves_the_stream_alone() -> None:
    torch.manual_seed(0)
    model, (x, _) = Residual(), data()
    graph = es.trace(model, x)
    assert joined(graph) == {"stem.weight:0"}
    state = GroupFisher(internal=True).start(model, graph, context(goal(graph.cost().macs // 2)))
    assert set(state.sums) == {"a1.weight:0", "b1.weight:0"}
    state.close()


def test_a_unit_that_nothing_misses_goes_first() -> None:
    torch.manual_seed(0)
    model, (x, y) = Residual(), data()
    with torch.no_grad():
        model.na.weight[2] = 0.0
        model.na.bias[2] = -1.0  # always cut off by the rectifier
    graph = es.trace(model, x)
    method = GroupFisher(every_steps=1)
    state = method.start(model, graph, context(goal(graph.cost().macs // 2), steps=1000))
    outputs = model.train()(x)
    method.penalty(state, (x, y), outputs)
    functional.cross_entropy(outputs, y).backward()
    method.step(state)
    assert state.gone == {"a1.weight:0": {2}}
    method.stop(state)


PAPER = [  # section 4.1: GFLOPs (multiply-accumulates) and memory, millions of output elements
    ("resnet50", 4.089, 11.11),
    ("resnet101", 7.80, 16.23),
    ("resnext50_32x4d", 4.23, 14.40),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "macs", "memory"), PAPER)
def test_costs_of_dense_networks_are_the_papers(name: str, macs: float, memory: float) -> None:
    declare()
    import timm

    with torch.device("meta"):
        model = timm.create_model(name).eval()
    graph = es.trace(model.to_empty(device="cpu"), torch.zeros(1, 3, 224, 224))
    assert graph.output_elements() / 1e6 == pytest.approx(memory, abs=0.006)
    assert graph.cost().macs / 1e9 == pytest.approx(macs, abs=0.006)
