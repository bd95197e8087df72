"""Laws of gates and taps: a gate of 0 is a cut, of 1 the identity; gradients are those of finite differences."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import optimizer as optimizer_module
from torch.utils._pytree import tree_leaves

import espalier as es
from espalier.core import ModelError, Plan, UnknownNameError

from ..patterns import BY_NAME, PATTERNS, Pattern
from ..patterns.masking import build, call, close, counted_plan, free_of_statistics, outputs

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.*weight_norm. is deprecated")


class Residual(nn.Module):
    """A sigmoid, biases and a depthwise convolution lie between producers and readers: zeros do not stay zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.one, self.one_norm = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.depthwise_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.two, self.two_norm = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.hidden, self.head = nn.Linear(6 * 16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_norm(self.stem(x)))
        y = torch.sigmoid(self.one_norm(self.one(x)))
        y = functional.relu(self.depthwise_norm(self.depthwise(y)))
        x = functional.relu(x + self.two_norm(self.two(y)))
        return self.head(functional.softplus(self.hidden(x.flatten(1))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.position = nn.Parameter(torch.randn(4, 12))
        self.heads = 3
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.out, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        b, n, _ = x.shape
        q, k, v = (part(x).reshape(b, n, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, -1))
        return self.head(x.sum(1))


def made(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = kind().double().eval()
    x = torch.randn(3, 3, 4, 4) if kind is Residual else torch.randn(3, 4, 5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    return model, x.double()


def close_gates(gates: dict[str, nn.Parameter], keep: dict[str, tuple[int, ...]]) -> None:
    with torch.no_grad():
        for name, units in keep.items():
            gates[name][sorted(set(range(len(gates[name]))) - set(units))] = 0


def weights(t: Tensor) -> Tensor:
    return torch.arange(1, t.numel() + 1, dtype=t.dtype).reshape(t.shape)


def loss(result: Any) -> Tensor:
    return torch.stack([(t * weights(t)).sin().sum() for t in tree_leaves(result)]).sum()


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
    gates_equal_cuts(BY_NAME[name])


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [p for p in PATTERNS if not p.refused], ids=lambda pattern: pattern.name)
def test_every_pattern(pattern: Pattern) -> None:
    gates_equal_cuts(pattern)


def gates_equal_cuts(pattern: Pattern) -> None:
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


@pytest.mark.parametrize("kind", [Residual, Attention])
def test_taps_are_gate_gradients_of_each_sample(kind: type[nn.Module]) -> None:
    """Brute force: a forward and backward a sample, with gates; a skip branch's gradient must not be counted."""
    model, x = made(kind)
    graph = es.trace(model, x)
    with es.taps(model, graph, gradients=True) as taps:
        for _ in range(2):  # a forward forgets the one before it
            torch.stack([loss(model(x)[i]) for i in range(3)]).sum().backward()
        found = {name: tap.gradients() for name, tap in taps.items()}
    assert len(found) >= len(graph.groups) - 1
    for name, gradients in found.items():
        expected = []
        for sample in range(3):
            with es.gates(model, graph, [name]) as gates:
                loss(model(x[sample : sample + 1])[0]).backward()
                expected.append(gates[name].grad)
        torch.testing.assert_close(gradients, torch.stack(expected), rtol=1e-9, atol=1e-10, msg=name)  # type: ignore[arg-type]


def test_taps_see_what_readers_read() -> None:
    model, x = made(Residual)
    graph = es.trace(model, x)
    names = ["one.weight:0", "stem.weight:0"]
    with torch.no_grad(), es.taps(model, graph, names, read=torch.clone) as taps:
        model(x)
    stem = functional.relu(model.stem_norm(model.stem(x)))  # type: ignore[operator]
    y = torch.sigmoid(model.one_norm(model.one(stem)))  # type: ignore[operator]
    y = functional.relu(model.depthwise_norm(model.depthwise(y)))  # type: ignore[operator]
    last = functional.relu(stem + model.two_norm(model.two(y)))  # type: ignore[operator]
    assert list(taps) == names
    assert close(taps[names[0]].readings, [y.flatten(2)], 1e-12)
    assert close(taps[names[1]].readings, [stem.flatten(2), last.flatten(2)], 1e-12)
    assert close([t.mean(2) for t in taps[names[1]].readings], [stem.mean((2, 3)), last.mean((2, 3))], 1e-12)


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


def test_a_hidden_reader_is_an_error_and_not_a_gap() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.weight = nn.Linear(4, 6), nn.Parameter(torch.randn(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("bi,io->bo", self.one(x), self.weight)

    model, x = Hidden().double(), torch.randn(2, 4).double()
    graph = es.trace(model, x)
    with es.taps(model, graph) as taps:
        call(model, x)
    with pytest.raises(ModelError, match="einsum"):
        _ = taps["one.weight:0"].readings


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
