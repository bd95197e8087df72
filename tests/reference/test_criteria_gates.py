"""Criteria of gate gradients against one forward and backward a sample, and one weight at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier import criteria
from espalier.core import Role
from espalier.graph import Graph

from .criteria_networks import batches, loss, network

KINDS = ("small", "residual", "grouped", "video")


def gate_gradients(model: nn.Module, graph: Graph, data: list, value=loss) -> dict[str, Tensor]:
    """Return d loss_n / d gate, (samples, units), a sample and a group at a time."""
    found: dict[str, list[Tensor]] = {name: [] for name in graph.groups}
    for inputs, targets in data:
        for n in range(len(inputs)):
            for name in graph.groups:
                with es.gates(model, graph, [name]) as gates:
                    value(model(inputs[n : n + 1]), targets[n : n + 1]).backward()
                    found[name].append(gates[name].grad)  # type: ignore[arg-type]
                    gates[name].grad = None
    return {name: torch.stack(rows) for name, rows in found.items()}


def check(scores: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert scores.keys() == expected.keys()
    for name, one in scores.items():
        torch.testing.assert_close(one, expected[name], rtol=1e-7, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("criterion", "of"),
    [
        (criteria.group_fisher, lambda g: g.square().mean(0)),
        (criteria.taylor_gate, lambda g: g.abs().mean(0)),
        (criteria.skeletonization, lambda g: -g.mean(0)),
    ],
    ids=["group_fisher", "taylor_gate", "skeletonization"],
)
def test_means_over_samples(kind, criterion, of) -> None:
    model, graph = network(kind)
    data = batches(kind, (3, 2))
    expected = {name: of(one) for name, one in gate_gradients(model, graph, data).items()}
    check(criterion(model, graph, batches=data, loss=loss), expected)


def test_skeletonization_foretells_the_loss_without_a_unit() -> None:
    """Scaling what reads a unit by 1 - e raises the loss by e times its score."""
    model, graph = network("small")
    ((x, y),) = batches("small", (5,))
    scores = criteria.skeletonization(model, graph, batches=[(x, y)], loss=loss)
    for name, own in scores.items():
        for unit in range(graph.sizes[name]):
            with torch.no_grad(), es.gates(model, graph, [name]) as gates:
                whole = float(loss(model(x), y))
                gates[name][unit] = 1 - 1e-6
                assert (float(loss(model(x), y)) - whole) / 1e-6 == pytest.approx(float(own[unit]), rel=1e-3, abs=1e-9)


def reader_gradients(model: nn.Module, graph: Graph, name: str, data: list) -> list[Tensor]:
    """Return W * dL/dW summed over each unit's columns, (samples, units) a reader: all are read by plain columns."""
    parts = []
    for slot in graph.groups[name].slots:
        if slot.role is Role.READER and slot.dim == 1:  # a depthwise convolution hands its channels on
            weight, rows = model.get_parameter(slot.tensor), []
            for inputs, targets in data:
                for n in range(len(inputs)):
                    (g,) = torch.autograd.grad(loss(model(inputs[n : n + 1]), targets[n : n + 1]), weight)
                    columns = (weight * g).detach().movedim(slot.dim, 0).flatten(1).sum(1)
                    rows.append(torch.stack([columns[positions].sum() for positions in slot.positions]))
            parts.append(torch.stack(rows))
    return parts


@pytest.mark.parametrize("kind", ["small", "mlp", "video"])
def test_fisher_squares_each_reader_and_group_fisher_their_sum(kind) -> None:
    model, graph = network(kind)
    data = batches(kind, (2, 2))
    single = criteria.fisher(model, graph, batches=data, loss=loss)
    group = criteria.group_fisher(model, graph, batches=data, loss=loss)
    several = 0
    for name in graph.groups:
        parts = reader_gradients(model, graph, name, data)
        several += len(parts) > 1
        torch.testing.assert_close(single[name], torch.stack(parts).square().mean(1).sum(0) / 2, msg=name)
        torch.testing.assert_close(group[name], torch.stack(parts).sum(0).square().mean(0), msg=name)
    assert several == (kind == "small")  # the stream of the residual block is read twice


def test_a_recurrent_group_counts_a_batch_as_one_sample() -> None:
    model, graph = network("recurrent")
    data = batches("recurrent", (3, 3))
    scores = criteria.group_fisher(model, graph, batches=data, loss=loss)
    hidden = next(name for name in graph.groups if "lstm" in name)
    rows = gate_gradients(model, graph, data)[hidden]
    torch.testing.assert_close(scores[hidden], (rows[:3].sum(0).square() + rows[3:].sum(0).square()) / 6)


def test_obs_is_the_least_quadratic_loss_without_a_unit() -> None:
    model, graph = network("small")
    data = batches("small", (4, 3))
    scores = criteria.obs(model, graph, batches=data, loss=loss, damping=0.05)
    for name, rows in gate_gradients(model, graph, data).items():
        fisher = rows.T @ rows / len(rows)
        fisher += 0.05 * fisher.diagonal().mean() * torch.eye(len(fisher))
        for unit in range(len(fisher)):  # minimise 1/2 d^T F d with d[unit] = -1
            rest = [i for i in range(len(fisher)) if i != unit]
            d = torch.zeros(len(fisher), dtype=torch.float64)
            d[unit] = -1
            d[rest] = torch.linalg.solve(fisher[rest][:, rest], fisher[rest, unit])
            assert float(d @ fisher @ d) / 2 == pytest.approx(float(scores[name][unit]), rel=1e-6)


@pytest.mark.parametrize("kind", ["small", "grouped"])
def test_sensitivity_variance(kind) -> None:
    model, graph = network(kind)
    data = batches(kind, (3, 2))
    rows = gate_gradients(model, graph, data, value=lambda outputs, _: outputs.mean())
    expected = {name: one.var(0, correction=0) for name, one in rows.items()}
    check(criteria.sensitivity_variance(model, graph, batches=data), expected)


def test_half_precision_scores_in_single() -> None:
    model, graph = network("mlp")
    small = es.trace(model.to(torch.bfloat16), torch.zeros(2, 4, dtype=torch.bfloat16))
    data = [(x.to(torch.bfloat16), y) for x, y in batches("mlp")]
    scores = criteria.group_fisher(model, small, batches=data, loss=loss)
    assert {one.dtype for one in scores.values()} == {torch.float32}
