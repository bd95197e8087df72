"""Criteria of weights' gradients and curvature against explicit gradients and Hessians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import espalier as es
from espalier import criteria
from espalier.core import ModelError
from espalier.graph import Graph

from .criteria_networks import batches, loss, network


class Explicit:
    """All slot parameters as one vector; gradient and Hessian of a batch's loss by it."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self.model, self.graph = model, graph
        slots = [slot.tensor for group in graph.groups.values() for slot in group.slots]
        given = dict(model.named_parameters())
        self.shapes = {name: given[name].shape for name in dict.fromkeys(slots) if name in given}
        self.vector = torch.cat([given[name].detach().flatten() for name in self.shapes])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def loss(self, x: Tensor, y: Tensor):
        return lambda vector: loss(functional_call(self.model, self.split(vector), (x,)), y)

    def gradient(self, x: Tensor, y: Tensor, at: Tensor | None = None) -> Tensor:
        return torch.func.grad(self.loss(x, y))(self.vector if at is None else at).detach()

    def hessian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.autograd.functional.hessian(self.loss(x, y), self.vector)  # type: ignore[return-value]

    def by_slot(self, vector: Tensor) -> dict[str, list[list[float]]]:
        """Return the sums over each unit's weights, slot by slot."""
        tensors = self.split(vector)
        return {
            name: [
                [
                    sum(float(tensors[slot.tensor].select(slot.dim, int(p)).sum()) for p in slot.positions[unit])
                    for unit in range(group.size)
                ]
                for slot in group.slots
                if slot.tensor in tensors
            ]
            for name, group in self.graph.groups.items()
        }


@pytest.fixture(params=["mlp", "small"])
def case(request) -> tuple[nn.Module, Graph, Explicit, list]:
    model, graph = network(request.param)
    return model, graph, Explicit(model, graph), batches(request.param, (4, 2))


def check(scores: dict[str, Tensor], expected: dict[str, np.ndarray]) -> None:
    assert scores.keys() == expected.keys()
    for name, one in scores.items():
        np.testing.assert_allclose(one.numpy(), expected[name], rtol=1e-6, atol=1e-10, err_msg=name)


def weighed(case, of, total=lambda sums: sums) -> dict[str, np.ndarray]:
    """Return the mean over samples of total(slot sums of of(x, y)), summed over slots."""
    _, graph, explicit, data = case
    expected = {name: np.zeros(size) for name, size in graph.sizes.items()}
    samples = sum(len(x) for x, _ in data)
    for x, y in data:
        for name, slots in explicit.by_slot(of(x, y)).items():
            expected[name] += sum(total(np.array(slot)) for slot in slots) * len(x) / samples
    return expected


def test_snip(case) -> None:
    model, graph, explicit, data = case
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    products = (explicit.vector * explicit.gradient(x, y)).abs()
    expected = {n: np.sum(slots, 0) for n, slots in explicit.by_slot(products / products.sum()).items()}
    check(criteria.snip(model, graph, batches=data, loss=loss), expected)


def test_grasp(case) -> None:
    model, graph, explicit, data = case
    expected = weighed(case, lambda x, y: explicit.vector * (explicit.hessian(x, y) @ explicit.gradient(x, y)))
    check(criteria.grasp(model, graph, batches=data, loss=loss), expected)


def test_grasp_is_half_of_what_the_gradient_norm_loses(case) -> None:
    model, graph, explicit, data = case
    scores = criteria.grasp(model, graph, batches=data[:1], loss=loss, reduce="first")
    x, y = data[0]
    whole = float(explicit.gradient(x, y).square().sum())
    for name, group in graph.groups.items():
        slot = next(slot for slot in group.slots if slot.role == "producer")
        shrunk = explicit.split(explicit.vector.clone())
        for p in slot.positions[1]:
            shrunk[slot.tensor].select(slot.dim, int(p)).mul_(1 - 1e-6)
        vector = torch.cat([one.flatten() for one in shrunk.values()])
        lost = whole - float(explicit.gradient(x, y, at=vector).square().sum())
        assert lost / 2e-6 == pytest.approx(float(scores[name][1]), rel=1e-3, abs=1e-8)


def test_taylor_second(case) -> None:
    model, graph, explicit, data = case

    def change(x: Tensor, y: Tensor) -> Tensor:
        w = explicit.vector
        return w * (explicit.gradient(x, y) - explicit.hessian(x, y) @ w / 2)

    check(criteria.taylor_second(model, graph, batches=data, loss=loss), weighed(case, change, np.abs))


def test_obd_exact(case) -> None:
    model, graph, explicit, data = case
    expected = weighed(case, lambda x, y: explicit.hessian(x, y).diagonal() * explicit.vector.square() / 2)
    check(criteria.obd(model, graph, batches=data, loss=loss, probes=None), expected)


def test_obd_of_random_probes_tends_to_the_exact_one() -> None:
    model, graph = network("mlp")
    data = batches("mlp", (4,))
    exact, few, many = (
        torch.cat(list(criteria.obd(model, graph, batches=data, loss=loss, probes=n).values())) for n in (None, 4, 400)
    )
    assert (many - exact).norm() < 0.2 * (few - exact).norm()
    assert (many - exact).norm() < 0.2 * exact.norm()


def test_obd_is_drawn_from_its_seed() -> None:
    model, graph = network("mlp")
    one, other = (criteria.obd(model, graph, batches=batches("mlp"), loss=loss, seed=seed) for seed in (0, 1))
    assert not torch.equal(one["one.weight:0"], other["one.weight:0"])


def test_karnin(case) -> None:
    model, graph, explicit, data = case
    lr = 0.05
    w = start = explicit.vector
    earned = torch.zeros_like(w)
    for x, y in data:
        g = explicit.gradient(x, y, at=w)
        w, earned = w - lr * g, earned + lr * g.square()
    sensitivity = torch.where(w == start, 0.0, earned * w / torch.where(w == start, 1.0, w - start))
    expected = {n: np.sum(slots, 0) for n, slots in explicit.by_slot(sensitivity).items()}
    check(criteria.karnin(model, graph, batches=data, loss=loss, lr=lr), expected)


def test_karnin_gives_the_weights_back_after_an_error() -> None:
    model, graph = network("mlp")
    before = [p.detach().clone() for p in model.parameters()]
    bad = [*batches("mlp"), (torch.zeros(2, 9).double(), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(ModelError, match="batch 3"):
        criteria.karnin(model, graph, batches=bad, loss=loss)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_an_operator_that_cannot_be_differentiated_twice_is_named() -> None:
    class Refusing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise RuntimeError("no derivative")

    class Once(Refusing):
        @staticmethod
        def backward(ctx, g):
            return Refusing.apply(g)

    model, graph = network("mlp")
    with pytest.raises(ModelError, match="cannot be differentiated twice"):
        criteria.grasp(model, graph, batches=batches("mlp"), loss=lambda o, t: loss(Once.apply(o), t))


def test_synflow_sums_over_paths() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = es.trace(model, torch.zeros(2, 3))
    one, two, three = (layer.weight.detach().double().abs() for layer in (model[0], model[2], model[4]))
    bias = [layer.bias.detach().double().abs() for layer in (model[0], model[2])]
    hidden = one.sum(1) + bias[0]  # what arrives at each unit from an input of ones
    later = two @ hidden + bias[1]
    back = three.sum(0)  # what leaves each unit for the sum of the outputs
    flow = {"0.weight:0": hidden * (two.T @ back), "2.weight:0": later * back}
    scores = criteria.synflow(model, graph)
    for name, through in flow.items():
        # producer and bias together carry the flow that arrives, the reader what leaves: each all of it; two samples
        torch.testing.assert_close(scores[name], 2 * (through + through), rtol=1e-6, atol=0)


def test_synflow_leaves_what_it_cannot_see_to_the_fallback() -> None:
    model, graph = network("attention")
    assert all(bool(one.isfinite().all()) for one in criteria.synflow(model, graph).values())
