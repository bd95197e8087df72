"""Laws of gates: a gate of 0 is a cut, of 1 the identity; gradients are those of finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import optimizer as optimizer_module

import espalier as es
from espalier.core import ModelError, Plan, UnknownNameError

from ..patterns import BY_NAME, PATTERNS, Pattern
from ..patterns.masking import build, close, counted_plan, free_of_statistics, outputs
from .gated import Attention, Residual, close_gates, loss, made

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.*weight_norm. is deprecated")


@pytest.mark.parametrize("kind", [Residual, Attention])
def test_each_group_alone_and_all_together(kind: type[nn.Module]) -> None:
    model, x = made(kind)
    graph = es.trace(model, x)
    assert len(graph.groups) == {Residual: 3, Attention: 4}[kind]
    plans = [counted_plan(graph, graph.groups, 0), *(counted_plan(graph, [name], 1) for name in graph.groups)]
    for keep in plans:
        with es.gates(model, graph) as gates:
            assert set(gates) == set(graph.groups)
            assert close(outputs(model, x), outputs(copy.deepcopy(model), x), 0.0)
            close_gates(gates, keep)
            gated = outputs(model, x)
        assert close(gated, outputs(es.cut(model, graph, Plan(keep)), x), 1e-11), keep
        assert not close(gated, outputs(model, x), 1e-6), f"the gates of {keep} do nothing"


@pytest.mark.parametrize(
    "name", ["conv2d", "feed_forward_glu", "rotary_halves", "lstm", "weight_norm", "query_key_norm"]
)
def test_patterns_in_short(name: str) -> None:
    assert_gates_equal_cuts(BY_NAME[name])


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [p for p in PATTERNS if not p.refused], ids=lambda pattern: pattern.name)
def test_every_pattern(pattern: Pattern) -> None:
    assert_gates_equal_cuts(pattern)


def assert_gates_equal_cuts(pattern: Pattern) -> None:
    model, example = build(pattern)
    graph = es.trace(model, example)
    with es.gates(model, graph) as gates:
        assert close(outputs(model, example), outputs(build(pattern)[0], example), 1e-12)
        keep = counted_plan(graph, [name for name in free_of_statistics(graph) if name in gates], 1)
        close_gates(gates, {name: units for name, units in keep.items() if name in gates})
        gated = outputs(model, example)
    if set(keep) <= set(gates):
        assert close(gated, outputs(es.cut(build(pattern)[0], graph, Plan(keep), prove=False), example))


@pytest.mark.parametrize("kind", [Residual, Attention])
def test_gradients_are_finite_differences(kind: type[nn.Module]) -> None:
    model, x = made(kind)
    graph = es.trace(model, x)
    with es.gates(model, graph) as gates:
        loss(model(x)).backward()
        for gate in gates.values():
            assert gate.grad is not None
            for unit in (0, len(gate) - 1):
                values = []
                for step in (1e-5, -1e-5):
                    with torch.no_grad():
                        gate[unit] += step
                        values.append(float(loss(model(x))))
                        gate[unit] -= step
                assert abs((values[0] - values[1]) / 2e-5 - float(gate.grad[unit])) < 1e-5 * (1 + abs(values[0]))


def test_outside_the_context_nothing_is_left() -> None:
    model, x = made(Residual)
    graph = es.trace(model, x)
    before = outputs(model, x)
    with pytest.raises(KeyError), es.gates(model, graph) as gates, es.taps(model, graph):
        gates["one.weight:0"].data.zero_()
        raise KeyError
    assert close(outputs(model, x), before, 0.0)
    assert not model._forward_pre_hooks
    assert not optimizer_module._global_optimizer_pre_hooks
    assert not optimizer_module._global_optimizer_post_hooks


def test_an_optimizer_steps_inside_as_outside() -> None:
    """Weight decay must see the weights, not the gated ones."""
    found = []
    for inside in (True, False):
        model, x = made(Residual)
        graph = es.trace(model, x)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1, foreach=False)
        with es.gates(model, graph) as gates, es.taps(model, graph) as taps:
            close_gates(gates, {"one.weight:0": (0, 1, 2)})
            loss(model(x)).backward()
            if inside:
                optimizer.step()
                assert all(tap.readings for tap in taps.values())
        if not inside:
            optimizer.step()
        found.append([p.detach() for p in model.parameters()])
    assert close(found[0], found[1], 0.0)


def test_gates_train() -> None:
    model, x = made(Residual)
    graph = es.trace(model, x)
    with es.gates(model, graph, ["one.weight:0"]) as gates:
        optimizer = torch.optim.SGD(gates.values(), lr=0.1)
        first = model(x).pow(2).sum()
        first.backward()
        optimizer.step()
        assert model(x).pow(2).sum() < first


def test_errors_name_the_group() -> None:
    model, x = made(Residual)
    graph = es.trace(model, x)
    with pytest.raises(UnknownNameError, match=r"one\.weight:0"), es.gates(model, graph, ["one.weight"]):
        pass
    small = es.cut(model, graph, Plan({"one.weight:0": (0, 1)}))
    with pytest.raises(ModelError, match="not the traced one"), es.gates(small, graph):
        pass
    model, example = build(BY_NAME["attention_linear"])
    graph = es.trace(model, example)
    with es.gates(model, graph) as gates:
        missing = sorted(set(graph.groups) - set(gates))
    assert missing
    with pytest.raises(ModelError, match="cannot be gated"), es.gates(model, graph, missing):
        pass
    model, example = build(BY_NAME["lstm"])
    graph = es.trace(model, example)
    with pytest.raises(ModelError, match="cannot be tapped"), es.taps(model, graph, list(graph.groups)):
        pass


class Tiny(nn.Module):
    """One hidden group, read in the way that ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.one, self.square, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.raw = nn.Parameter(torch.randn(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x)
        if self.how == "turned":
            return y @ self.last.weight.t() + y.matmul(self.last.weight.T) + y @ self.raw
        if self.how == "square":
            return self.last(y + self.square(y))
        if self.how == "sum":
            return functional.gelu(y).sum(1, keepdim=True)
        if self.how == "written":
            y.t().add_(0.5)
            return y.sum(1, keepdim=True)
        return torch.tanh(y)


def tiny(how: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    return Tiny(how).double(), torch.randn(3, 4).double()


@pytest.mark.parametrize("how", ["turned", "square", "sum"])
def test_ways_of_reading(how: str) -> None:
    model, x = tiny(how)
    graph = es.trace(model, x)
    keep = {"one.weight:0": (0, 2, 5)}
    with es.gates(model, graph, list(keep)) as gates:
        close_gates(gates, keep)
        gated = outputs(model, x)
    assert close(gated, outputs(es.cut(model, graph, Plan(keep)), x), 1e-12)
    if how == "sum":
        return
    with es.taps(model, graph, list(keep), read=torch.clone) as taps:
        model(x)
    y = model.one(x)[..., None]  # type: ignore[operator]
    read = {"turned": [y, y, y], "square": [y, y + model.square(y[..., 0])[..., None]]}[how]  # type: ignore[operator]
    assert close(taps["one.weight:0"].readings, read, 1e-12)


def test_free_outputs_are_read_by_the_caller() -> None:
    model, x = tiny("output")
    graph = es.trace(model, x, free_outputs=True)
    with es.gates(model, graph) as gates:
        close_gates(gates, {"one.weight:0": (1, 3)})
        (gated,) = outputs(model, x)
    assert close([gated[:, [1, 3]]], outputs(es.cut(model, graph, Plan({"one.weight:0": (1, 3)})), x), 1e-12)
    assert not gated[:, [0, 2, 4, 5]].any()


def test_a_value_that_is_written_into_is_not_silenced_by_its_maker() -> None:
    model, x = tiny("written")
    graph = es.trace(model, x)
    with pytest.raises(ModelError, match=r"'one.weight:0' cannot be gated"), es.gates(model, graph, ["one.weight:0"]):
        pass
