"""Taylor scores against brute force, and the model it scores comes back as it was."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from espalier import criteria
from espalier.core import Group, ModelError, Role, Slot, UnknownNameError

FORMS = {
    "unit": lambda p: abs(sum(p)),
    "element": lambda p: sum(map(abs, p)),
    "square": lambda p: sum(v * v for v in p),
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.bn = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4, 2)
        self.unused = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        twice = self.drop(self.bn(self.first(x))).tanh()
        return self.last(twice[:, :4] * twice[:, 4:])


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net().double()
    model.bn.running_mean.normal_()
    return model


@pytest.fixture
def graph(net: Net) -> SimpleNamespace:
    pairs = np.stack([np.arange(4), np.arange(4, 8)], 1)  # unit u is computed by rows u and u + 4
    slots = (
        Slot("first.weight", 0, pairs, Role.PRODUCER),
        Slot("first.bias", 0, pairs, Role.SHIFT),
        Slot("bn.weight", 0, pairs, Role.SCALE),
        Slot("bn.bias", 0, pairs, Role.SHIFT),
        Slot("bn.running_var", 0, pairs, Role.SHIFT),
        Slot("unused", 0, pairs, Role.SCALE),
        Slot("last.weight", 1, np.arange(4)[:, None], Role.READER),
    )
    group = Group("first.weight:0", 4, slots)
    return SimpleNamespace(groups={group.name: group}, shapes={n: tuple(t.shape) for n, t in net.state_dict().items()})


@pytest.fixture
def batches() -> list:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(5, 3, generator=generator, dtype=torch.float64), torch.randint(2, (5,), generator=generator))
        for _ in range(3)
    ]


LOSS = nn.functional.cross_entropy


@pytest.mark.parametrize("form", FORMS)
def test_taylor(net, graph, batches, form):
    scores = criteria.taylor(net, graph, batches=batches, loss=LOSS, form=form)["first.weight:0"]
    net.eval()
    expected = np.zeros(4)
    for inputs, targets in batches:
        net.zero_grad()
        LOSS(net(inputs), targets).backward()
        for slot in graph.groups["first.weight:0"].slots:
            if slot.tensor in ("bn.running_var", "unused"):
                continue
            weight = net.get_parameter(slot.tensor)
            product = (weight * weight.grad).detach()
            for unit in range(4):
                rows = [product.select(slot.dim, int(p)).flatten() for p in slot.positions[unit]]
                expected[unit] += FORMS[form](torch.cat(rows).tolist()) / len(batches)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9)


def test_the_unit_form_predicts_the_change_of_the_loss(net, graph, batches):
    """Scaling one unit's reader by 1 - e changes the loss by e times its score, for small e."""
    slot = graph.groups["first.weight:0"].slots[-1]
    graph.groups = {"last": Group("last", 4, (slot,))}
    scores = criteria.taylor(net, graph, batches=batches[:1], loss=LOSS)["last"]
    net.eval()
    inputs, targets = batches[0]
    whole = float(LOSS(net(inputs), targets).detach())
    for unit in range(4):
        with torch.no_grad():
            net.last.weight[:, unit] *= 1 - 1e-6
            change = float(LOSS(net(inputs), targets)) - whole
            net.last.weight[:, unit] /= 1 - 1e-6
        assert abs(change) / 1e-6 == pytest.approx(float(scores[unit]), rel=1e-3)


def test_the_model_comes_back_as_it_was(net, graph, batches):
    net.train()
    net.drop.eval()
    net.first.weight.requires_grad_(False)
    net.last.weight.grad = kept = torch.ones_like(net.last.weight)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    criteria.taylor(net, graph, batches=batches, loss=LOSS)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert [m.training for m in net.modules()] == [True, True, True, False, True]
    assert not net.first.weight.requires_grad
    assert net.last.weight.grad is kept
    assert net.bn.weight.grad is None


def test_buffers_written_in_eval_mode_are_restored(net, graph, batches):
    def drift(module: nn.Module, args: object, output: object) -> None:
        module.running_mean.add_(1.0)

    net.bn.register_forward_hook(drift)
    before = net.bn.running_mean.clone()
    with pytest.raises(ZeroDivisionError):
        criteria.taylor(net, graph, batches=batches, loss=lambda outputs, targets: 1 / 0)
    assert torch.equal(net.bn.running_mean, before)
    assert net.training


def test_inputs_may_be_positional_or_keywords(net, graph, batches):
    plain = criteria.taylor(net, graph, batches=batches, loss=LOSS)["first.weight:0"]
    for wrap in (lambda x: (x,), lambda x: {"x": x}):
        wrapped = [(wrap(inputs), targets) for inputs, targets in batches]
        assert torch.equal(criteria.taylor(net, graph, batches=wrapped, loss=LOSS)["first.weight:0"], plain)


def test_under_no_grad(net, graph, batches):
    with torch.no_grad():
        assert float(criteria.taylor(net, graph, batches=batches, loss=LOSS)["first.weight:0"].sum()) > 0


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda outputs, targets: outputs, "must return a scalar"),
        (lambda outputs, targets: outputs.detach().sum(), "does not depend on the model"),
        (lambda outputs, targets: outputs.sum() * float("nan"), "the loss is nan"),
    ],
)
def test_a_bad_loss_is_named(net, graph, batches, loss, message):
    with pytest.raises(ModelError, match=message):
        criteria.taylor(net, graph, batches=batches, loss=loss)


def test_no_batches_and_unknown_forms_are_named(net, graph):
    with pytest.raises(ModelError, match="batches is empty"):
        criteria.taylor(net, graph, batches=[], loss=LOSS)
    with pytest.raises(UnknownNameError, match="Did you mean 'square'"):
        criteria.taylor(net, graph, batches=[], loss=LOSS, form="squared")
