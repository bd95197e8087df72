"""The law of carried optimizers: what survives trains on as in the uncut network whose removed units are masked."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.core import CutError, Plan, Surgery

Make = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam_amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.01),
    "adam_tensor_lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01, dtype=torch.float64), foreach=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}


class Net(nn.Module):
    """Two hidden layers and a tied output; ``masks`` blank hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 8, bias=False)
        self.last = nn.Linear(8, 3)
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        masks = self.masks or [torch.ones((), dtype=x.dtype)] * 3
        x = functional.relu(self.one(x)) * masks[0]
        x = torch.tanh(self.two(x)) * masks[1]
        x = functional.gelu(self.three(x)) * masks[2]
        return self.last(x)


EXAMPLE = torch.zeros(2, 5, dtype=torch.float64)
SIZES = {"one.weight:0": 8, "two.weight:0": 6, "three.weight:0": 8}
KEEPS = {"one.weight:0": (0, 2, 3, 6, 7), "two.weight:0": (1, 2, 5), "three.weight:0": (4, 5, 6, 7)}


def made() -> Net:
    torch.manual_seed(0)
    return Net().double()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(4, 5, dtype=torch.float64, generator=generator)
        y = torch.randn(4, 3, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()


def masks(keeps: dict[str, tuple[int, ...]]) -> list[Tensor]:
    found = []
    for name, size in SIZES.items():
        mask = torch.zeros(size, dtype=torch.float64)
        mask[list(keeps.get(name, range(size)))] = 1
        found.append(mask)
    return found


def survivors(model: nn.Module, surgery: Surgery) -> dict[str, Tensor]:
    """Return the parameters of the uncut model where the surgery keeps them."""
    found = {}
    for name, p in model.named_parameters():
        for d in range(p.dim()):
            if (name, d) in surgery.slices:
                p = p.index_select(d, torch.tensor(surgery.slices[name, d].keep))
        found[name] = p.detach()
    return found


def assert_same(small: nn.Module, dense: nn.Module) -> None:
    expected = survivors(dense, small.espalier_surgery)  # type: ignore[arg-type]
    for name, p in small.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-11, atol=1e-13, msg=name)


def groups_of(model: nn.Module) -> list[dict]:
    """Return two groups with options of their own."""
    named = dict(model.named_parameters())
    slow = [p for n, p in named.items() if n.startswith("one")]
    return [{"params": slow, "lr": 0.02}, {"params": [p for n, p in named.items() if not n.startswith("one")]}]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_survivors_train_on_as_in_the_masked_network(name: str) -> None:
    dense = made()
    optimizer = OPTIMIZERS[name](groups_of(dense))
    train(dense, optimizer, 5, seed=1)
    graph = es.trace(dense, EXAMPLE)
    small = es.cut(dense, graph, Plan(KEEPS))
    carried = es.carry_optimizer(optimizer, dense, small)
    assert type(carried) is type(optimizer)
    assert [g["lr"] for g in carried.param_groups] == [g["lr"] for g in optimizer.param_groups]
    dense.masks = masks(KEEPS)
    train(dense, optimizer, 4, seed=2)
    train(small, carried, 4, seed=2)
    assert_same(small, dense)


@pytest.mark.parametrize("name", ["sgd_momentum", "adam"])
def test_a_fresh_optimizer_is_not_enough(name: str) -> None:
    """The law above must be able to fail."""
    dense = made()
    optimizer = OPTIMIZERS[name](dense.parameters())
    train(dense, optimizer, 5, seed=1)
    small = es.cut(dense, es.trace(dense, EXAMPLE), Plan(KEEPS))
    fresh = OPTIMIZERS[name](small.parameters())
    dense.masks = masks(KEEPS)
    train(dense, optimizer, 1, seed=2)
    train(small, fresh, 1, seed=2)
    with pytest.raises(AssertionError):
        assert_same(small, dense)


def test_momentum_by_hand() -> None:
    """One linear-relu-linear net, one step: v = m v + g, w = w - lr v, on the surviving rows alone."""
    torch.manual_seed(3)
    dense = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)).double()
    optimizer = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.8)
    x, y = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        functional.mse_loss(dense(x), y).backward()
        optimizer.step()
    kept = [1, 2, 5]
    before = [p.detach().clone() for p in dense.parameters()]
    velocity = [optimizer.state[p]["momentum_buffer"].clone() for p in dense.parameters()]
    small = es.cut(dense, es.trace(dense, x), Plan({"0.weight:0": tuple(kept)}))
    carried = es.carry_optimizer(optimizer, dense, small)
    w, u = before[0][kept], before[1][:, kept]
    hidden = x @ w.T
    error = 2 * (hidden.relu() @ u.T - y) / y.numel()
    gradients = (error @ u * (hidden > 0)).T @ x, error.T @ hidden.relu()
    functional.mse_loss(small(x), y).backward()
    carried.step()
    velocity = velocity[0][kept], velocity[1][:, kept]
    for found, old, g, v in zip(small.parameters(), (w, u), gradients, velocity, strict=True):
        torch.testing.assert_close(found.detach(), old - 0.1 * (0.8 * v + g), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sgd_momentum", "adam_amsgrad"])
def test_two_cuts_carry_twice(name: str) -> None:
    dense = made()
    optimizer = OPTIMIZERS[name](dense.parameters())
    train(dense, optimizer, 3, seed=1)
    first = es.cut(dense, es.trace(dense, EXAMPLE), Plan(KEEPS))
    carried = es.carry_optimizer(optimizer, dense, first)
    dense.masks = masks(KEEPS)
    train(dense, optimizer, 2, seed=2)
    train(first, carried, 2, seed=2)
    second = es.cut(first, es.trace(first, EXAMPLE), Plan({"one.weight:0": (1, 4), "three.weight:0": (0, 2, 3)}))
    again = es.carry_optimizer(carried, first, second)
    dense.masks = masks({**KEEPS, "one.weight:0": (2, 7), "three.weight:0": (4, 6, 7)})
    train(dense, optimizer, 3, seed=3)
    train(second, again, 3, seed=3)
    assert_same(second, dense)


def test_in_place_cuts_are_told_what_was_before() -> None:
    dense, copied = made(), made()
    optimizer, carried = OPTIMIZERS["adam"](dense.parameters()), OPTIMIZERS["adam"](copied.parameters())
    later = Plan({"one.weight:0": (1, 4)})
    train(dense, optimizer, 3, seed=1)
    train(copied, carried, 3, seed=1)
    es.cut_(copied, es.trace(copied, EXAMPLE), Plan(KEEPS))
    carried = es.carry_optimizer(carried, copied, copied)
    before = copied.espalier_surgery
    assert isinstance(before, Surgery)
    es.cut_(copied, es.trace(copied, EXAMPLE), later)
    with pytest.raises(CutError, match="before="):
        es.carry_optimizer(carried, copied, copied)
    carried = es.carry_optimizer(carried, copied, copied, before=before)
    dense.masks = masks({**KEEPS, "one.weight:0": (2, 7)})
    train(dense, optimizer, 3, seed=2)
    train(copied, carried, 3, seed=2)
    assert_same(copied, dense)


def test_tied_weights_and_channels_last() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 6)
            self.conv = nn.Conv2d(6, 4, 3)
            self.out = nn.Linear(4, 6)
            self.head = nn.Linear(6, 10, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.table(tokens).permute(0, 2, 1).unflatten(2, (3, 3))
            return self.head(self.out(self.conv(x).flatten(1)))

    torch.manual_seed(0)
    model = Tied().double()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload] - known to the runtime alone
    tokens = torch.randint(10, (2, 9))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(tokens).sum().backward()
    optimizer.step()
    small = es.cut(model, es.trace(model, tokens), Plan({"table.weight:1": (0, 2, 5), "conv.weight:0": (1, 3)}))
    carried = es.carry_optimizer(optimizer, model, small)
    old, new = optimizer.state[model.table.weight], carried.state[small.head.weight]  # type: ignore[index]
    assert torch.equal(new["exp_avg"], old["exp_avg"][:, [0, 2, 5]])
    moment = carried.state[small.conv.weight]["exp_avg"]  # type: ignore[index]
    assert torch.equal(moment, optimizer.state[model.conv.weight]["exp_avg"][[1, 3]][:, [0, 2, 5]])
    assert moment.is_contiguous(memory_format=torch.channels_last)
    assert len(carried.state) == len(optimizer.state) == 5


def test_the_old_optimizer_and_foreign_parameters_are_left_alone() -> None:
    dense, own = made(), nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = torch.optim.Adam([*dense.named_parameters(), ("temperature", own)], lr=0.01)
    train(dense, optimizer, 2, seed=1)
    own.grad = torch.ones_like(own)
    optimizer.step()
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    small = es.cut(dense, es.trace(dense, EXAMPLE), Plan(KEEPS))
    before = copy.deepcopy(optimizer.state_dict())
    carried = es.carry_optimizer(optimizer, dense, small)
    train(small, carried, 2, seed=1)
    own.grad = torch.ones_like(own)
    carried.step()
    assert carried.state[own]["step"] == 2
    after = optimizer.state_dict()
    for key, state in before["state"].items():
        assert all(torch.equal(value, after["state"][key][name]) for name, value in state.items())
    assert carried.param_groups[0]["params"][-1] is own
    assert carried.param_groups[0]["param_names"] == optimizer.param_groups[0]["param_names"]
    assert carried.param_groups[0]["initial_lr"] == 0.01


def test_what_cannot_be_sliced_is_refused() -> None:
    dense = made()
    graph, plan = es.trace(dense, EXAMPLE), Plan(KEEPS)
    small = es.cut(dense, graph, plan)
    factored = torch.optim.Adafactor(dense.parameters())
    train(dense, factored, 1, seed=1)
    with pytest.raises(CutError, match="Adafactor's 'col_var'"):
        es.carry_optimizer(factored, dense, small)
    flat = torch.optim.LBFGS(dense.parameters())
    with pytest.raises(CutError, match="LBFGS"):
        es.carry_optimizer(flat, dense, small)


def test_models_that_do_not_belong_are_refused() -> None:
    dense, other = made(), made()
    optimizer = torch.optim.Adam(dense.parameters())
    train(dense, optimizer, 1, seed=1)
    graph = es.trace(dense, EXAMPLE)
    small = es.cut(dense, graph, Plan(KEEPS))
    cousin = es.cut(dense, graph, Plan({"one.weight:0": (0, 1)}))
    with pytest.raises(CutError, match="holds no parameter of the model"):
        es.carry_optimizer(optimizer, other, small)
    carried = es.carry_optimizer(optimizer, dense, small)
    with pytest.raises(CutError, match="was not cut from this one"):
        es.carry_optimizer(carried, small, cousin)
    with pytest.raises(CutError, match="does not fit"):
        es.carry_optimizer(optimizer, dense, nn.Linear(5, 3).double())


def test_random_plans_carry() -> None:
    draw = random.Random(5)
    for _ in range(5):
        keeps = {n: tuple(sorted(draw.sample(range(s), draw.randint(1, s)))) for n, s in SIZES.items()}
        dense = made()
        optimizer = OPTIMIZERS["adamw"](dense.parameters())
        train(dense, optimizer, 2, seed=1)
        small = es.cut(dense, es.trace(dense, EXAMPLE), Plan(keeps))
        carried = es.carry_optimizer(optimizer, dense, small)
        dense.masks = masks(keeps)
        train(dense, optimizer, 2, seed=2)
        train(small, carried, 2, seed=2)
        assert_same(small, dense)
