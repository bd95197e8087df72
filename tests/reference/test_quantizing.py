"""Methods that hold real weights, each against its paper's formulas written out: one step, gradients by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import espalier as es
from espalier.methods import registry
from espalier.methods.binary_weights import exact, sign
from espalier.methods.quantizing.binary_connect import drawn

from .method_context import context

LR = 0.02


class Small(nn.Module):
    """A convolution and two linear layers, with something between them that signs can be taken of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.middle = nn.Conv2d(4, 3, 3, stride=2, padding=1)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.norm(self.conv(x))).flatten(1))


LAYERS = ("conv", "middle", "last")
INPUT = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
TARGETS = torch.arange(6) % 5


@dataclass
class Stepped:
    """A network after one step, what its real weights were before it, and the method's state."""

    model: Small
    before: dict[str, Tensor]
    shown: dict[str, Tensor]
    gradients: dict[str, Tensor]
    state: Any


def stepped(name: str, *, weights: float = 1.0, **options: Any) -> Stepped:
    torch.manual_seed(0)
    model = Small().train()
    with torch.no_grad():
        for layer in LAYERS:
            model.get_submodule(layer).weight.mul_(weights)
    method: Any = registry.made(name, options)
    state = method.start(model, es.trace(model, INPUT), context(None))  # type: ignore[arg-type]  no goal is needed
    before = {real.layer: real.value.clone() for real in state}
    shown = {real.layer: real.shown.detach().clone() for real in state}
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    functional.cross_entropy(model(INPUT), TARGETS).backward()
    method.gradients(state, LR)
    gradients = {real.layer: real.shown.grad.clone() for real in state}
    optimizer.step()
    method.step(state)
    return Stepped(model, before, shown, gradients, state)


def by_autograd(shown: dict[str, Tensor], read: dict[str, Callable[[Tensor], tuple[Tensor, Tensor | float]]]) -> dict:
    """Return dL/d(shown) of the untouched network, with what its layers read made by ``read``: (signs, K)."""
    torch.manual_seed(0)
    model = Small().train()
    leaves = {layer: tensor.clone().requires_grad_() for layer, tensor in shown.items()}

    def layer(name: str, x: Tensor) -> Tensor:
        module, (signs, k) = model.get_submodule(name), read.get(name, lambda x: (x, 1.0))(x)
        weight = leaves.get(name, module.weight)
        plain = functional_call(module, {"weight": weight, "bias": torch.zeros_like(module.bias)}, (signs,))
        return plain * k + module.bias.view(-1, *[1] * (plain.dim() - 2))

    x = layer("last", layer("middle", model.norm(layer("conv", INPUT))).flatten(1))
    functional.cross_entropy(x, TARGETS).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def through(x: Tensor) -> Tensor:
    """Return sign(x) with the gradient 1[|x| <= 1]."""
    inside = x.clamp(-1, 1)
    return inside + (torch.where(x >= 0, 1.0, -1.0) - inside).detach()


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def glorot(weight: Tensor) -> float:
    kernel = weight[0, 0].numel()
    return float(1 / (1.5 / (kernel * (weight.shape[0] + weight.shape[1]))) ** 0.5)


@pytest.mark.parametrize("name", ["binary_connect", "binary_net"])
def test_signs_are_trained_through_real_weights_that_are_scaled_and_clipped(name: str) -> None:
    torch.manual_seed(0)
    plain = Small()
    first = {layer: plain.get_submodule(layer).weight.detach() for layer in LAYERS}
    done = stepped(name)
    read = {} if name == "binary_connect" else {at: lambda x: (through(x), 1.0) for at in ("middle", "last")}
    expected = by_autograd({layer: torch.where(first[layer] >= 0, 1.0, -1.0) for layer in LAYERS}, read)
    for layer in LAYERS:
        c = glorot(first[layer])
        real = (first[layer] * c).clamp(-1, 1)
        assert torch.equal(done.before[layer], real)
        close(done.gradients[layer], expected[layer])
        after = (real - c * LR * expected[layer]).clamp(-1, 1)
        close(next(one.value for one in done.state if one.layer == layer), after)
        assert torch.equal(done.model.get_submodule(layer).weight, torch.where(after >= 0, 1.0, -1.0))


def test_a_learning_rate_scale_can_be_one_number() -> None:
    done = stepped("binary_connect", lr_scale=2.0)
    for one in done.state:
        after = (done.before[one.layer] - 2 * LR * done.gradients[one.layer]).clamp(-1, 1)
        close(one.value, after)


def test_stochastic_weights_are_plus_one_with_the_hard_sigmoids_probability() -> None:
    values = torch.tensor([-1.0, -0.5, 0.0, 0.3, 1.0]).repeat(20_000, 1)
    found = drawn(values, torch.Generator().manual_seed(3))
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(found.mean(0), values[0], atol=0.03, rtol=0)  # E[w_b] = w inside [-1, 1]
    assert bool((found[:, 0] == -1).all()) and bool((found[:, -1] == 1).all())


@pytest.mark.parametrize("scaled", [True, False])
def test_xnor_gradients_go_through_the_sign_and_the_scale(scaled: bool) -> None:
    done = stepped("xnor_net", weights=8.0, ends=True, scaled=scaled)
    box = torch.full((1, 1, 3, 3), 1 / 9)

    def of_conv(x: Tensor) -> tuple[Tensor, Tensor | float]:
        mean = x.detach().abs().mean(1, keepdim=True)
        return through(x), functional.conv2d(mean, box, stride=2, padding=1) if scaled else 1.0

    def of_linear(x: Tensor) -> tuple[Tensor, Tensor | float]:
        return through(x), x.detach().abs().mean(1, keepdim=True) if scaled else 1.0

    expected = by_autograd(done.shown, {"middle": of_conv, "last": of_linear})
    assert any(bool((done.before[layer].abs() == 1).any()) for layer in LAYERS)  # some are clipped from the start
    for one in done.state:
        w, upstream = done.before[one.layer], expected[one.layer]
        wanted = torch.empty_like(w)
        for filter_ in range(len(w)):  # the paper's formula, a weight at a time
            n, alpha = w[filter_].numel(), w[filter_].abs().sum() / w[filter_].numel()
            torch.testing.assert_close(
                done.shown[one.layer][filter_].abs().max(), alpha, rtol=2**-12, atol=0
            )  # rounded to few bits
            for place, value in enumerate(w[filter_].flatten().tolist()):
                inside = 1.0 if abs(value) <= 1 else 0.0
                slope = 1 / n + inside * alpha
                wanted[filter_].view(-1)[place] = upstream[filter_].reshape(-1)[place] * slope
        torch.testing.assert_close(done.gradients[one.layer], wanted, rtol=1e-3, atol=1e-6)
        after = (w - LR * done.gradients[one.layer]).clamp(-1, 1)
        close(one.value, after)
        assert torch.equal(done.model.get_submodule(one.layer).weight.sign(), torch.where(after >= 0, 1.0, -1.0))


def test_a_scale_has_so_few_bits_that_every_sum_is_exact() -> None:
    scales = torch.rand(50, generator=torch.Generator().manual_seed(0)) + 0.01
    for terms in (1, 9, 1152, 4096):
        rounded = exact(scales, terms)
        torch.testing.assert_close(rounded, scales, rtol=2.0 ** (terms.bit_length() - 24), atol=0)
        counts = torch.arange(-terms, terms + 1, max(1, terms // 500)).double()
        products = rounded.double() * counts[:, None]
        assert torch.equal(products, products.float().double())


def test_ternary_thresholds_and_gradients_are_the_papers() -> None:
    torch.manual_seed(0)
    plain = Small()
    done = stepped("trained_ternary", ends=True, threshold=0.4)
    for index, layer in enumerate(LAYERS):
        weight = plain.get_submodule(layer).weight.detach()
        w = weight / weight.abs().max()
        edge = 0.4 * w.abs().max()
        above, below = w > edge, w < -edge
        close(done.before[layer], w)
        begin = torch.stack([weight[above].mean(), -weight[below].mean()])
        factors = nn.Parameter(torch.ones(2))
        adam = torch.optim.Adam([factors], lr=LR)
        positive, negative = (begin * factors).unbind()
        ternary = above * positive - below * negative
        close(done.shown[layer], ternary.detach())
        upstream = by_autograd(done.shown, {})[layer]
        ternary.backward(upstream)  # autograd's own dL/dW_p and dL/dW_n
        slope = torch.where(above, begin[0], torch.where(below, begin[1], torch.tensor(1.0)))
        close(done.gradients[layer], upstream * slope)
        adam.step()
        close(done.state.factors[index], factors)
        after = w - LR * upstream * slope
        edge = 0.4 * after.abs().max()
        now = (begin * factors).detach()
        wanted = (after > edge) * now[0] - (after < -edge) * now[1]
        close(done.model.get_submodule(layer).weight.detach(), wanted)


def test_the_default_threshold_is_the_papers() -> None:
    assert registry.made("trained_ternary", {}).threshold == 0.05  # type: ignore[attr-defined]


def test_zero_counts_as_plus_one() -> None:
    assert sign(torch.tensor([0.0, -0.0])).tolist() == [1.0, 1.0]
