"""A light step computes the same outputs, keeps a quarter of the bytes, and still reaches every parameter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.graph.proof import light_step as module
from espalier.graph.proof.light_step import light_step


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 5)).double()


def _gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    output = model(x)
    output.square().sum().backward()
    return output.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(module, "LARGE_ELEMENTS", 1)


def test_outputs_are_the_same_and_gradients_nearly(everything_is_large):
    x, plain, light = torch.randn(4, 3, 8, 8, dtype=torch.float64), _network(), _network()
    expected, gradients = _gradients(plain, x)
    with light_step():
        found, rough = _gradients(light, x)
    assert torch.equal(found, expected)
    assert len(rough) == len(gradients) == 6
    for a, b in zip(rough, gradients, strict=True):
        assert a.dtype == torch.float64
        assert float((a - b).norm() / b.norm().clamp_min(1.0)) < 0.05  # the bias before the norm has no gradient
    assert not all(torch.equal(a, b) for a, b in zip(rough, gradients, strict=True))  # the packing took place


def test_only_what_saves_bytes_is_packed(everything_is_large):
    with torch.enable_grad():
        own = torch.randn(8, 8, dtype=torch.float64, requires_grad=True) * 1
    shared = own[:1].expand(200, 8)
    single, leaf = own.float(), own.detach()
    assert module._pack(own)[0].dtype == torch.bfloat16
    for tensor in (shared, single, leaf):
        packed = module._pack(tensor)
        assert packed[0].data_ptr() == tensor.data_ptr()
        assert module._unpack(packed).dtype == tensor.dtype


def test_a_half_precision_tensor_comes_back_as_it_was(everything_is_large):
    half = torch.randn(4, dtype=torch.bfloat16, requires_grad=True) * 1
    back = module._unpack(module._pack(half))
    assert back.dtype == torch.bfloat16
    assert torch.equal(back, half)


def test_small_tensors_stay_exact():
    x, plain, light = torch.randn(4, 3, 8, 8, dtype=torch.float64), _network(), _network()
    expected = _gradients(plain, x)[1]
    with light_step():
        found = _gradients(light, x)[1]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


class Force(nn.Module):
    """Answers with the gradient of an energy, as models of forces do."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


def test_a_forward_pass_that_differentiates_is_proved_all_the_same(everything_is_large):
    torch.manual_seed(0)
    model, x = Force().eval(), torch.randn(4, 8)
    graph = es.trace(model, x)
    small = es.cut(model, graph, es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(params=0.6)))
    assert small.espalier_proof == "float64"
    assert small.energy[0].out_features < 32
