"""C2S2 against its formulas, and its controller against a validation that the test decides."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.graph import gates
from espalier.graph.probes.gates import fold_gates_, ungated
from espalier.methods import Restore, Snapshot
from espalier.methods.pruning.c2s2 import C2S2
from espalier.methods.pruning_layer import PruningLayer

from .method_context import context, goal


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3))


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(8, 2, 4, 4), torch.randint(3, (8,))


class Bench:
    """A method that is driven by hand: validation answers what it is told, snapshots are copies."""

    def __init__(self, method: C2S2, *answers: float, steps: int = 24, max_drop: float | None = 1.0) -> None:
        self.method, self.model, self.answers, self.held = method, net().train(), list(answers), False
        self.notes: list[str] = []
        self.graph = es.trace(self.model, data()[0])
        whole = {"limits": {}, "max_drop": max_drop, "fits": lambda graph, counts: False}
        self.context = context(
            goal(1, **whole),
            steps=steps,
            evaluate=lambda model: self.answers.pop(0),
            snapshot=lambda: Snapshot(copy.deepcopy(self.model)),
            hold=lambda still: setattr(self, "held", still),
            note=self.notes.append,
        )
        self.state: Any = method.start(self.model, self.graph, self.context)

    def step(self, p: Tensor | None = None) -> Any:
        """Train a step; ``p`` sets the mask before the method decides."""
        x, y = data()
        outputs = self.model(x)
        loss = functional.cross_entropy(outputs, y) + self.method.penalty(self.state, (x, y), outputs)
        loss.backward()
        if p is not None and self.state.layer is not None:
            with torch.no_grad():
                self.state.layer.real.copy_(p)
            self.state.layer.gate.grad = self.state.layer.real.grad = None
            self.state.layer.velocity.zero_()
        wish = self.method.step(self.state)
        if isinstance(wish, Restore):
            self.model = copy.deepcopy(wish.snapshot.held)
        elif wish is not None:
            self.model = es.cut(self.model, self.graph, wish)
        if wish is not None:
            self.model.train()
            self.graph = es.trace(self.model, x)
            self.method.after_cut(self.state, self.model, self.graph)
        return wish


def test_the_mask_follows_the_gradient_of_its_objective() -> None:
    """dp = L_task'(p) + lambda + mu (1 - 2 p), by SGD with momentum, within [0, 1]."""
    method = C2S2(lr=0.3, momentum=0.5, strength=0.2, gap=0.4)
    bench = Bench(method, 0.9, steps=240)
    x, y = data()
    p, velocity = torch.ones(6), torch.zeros(6)
    weights = [parameter.detach().clone() for parameter in bench.model.parameters()]
    for _ in range(2):
        with ungated():
            hand = copy.deepcopy(bench.model)
        masked = p.clone().requires_grad_()
        read = hand[2](hand[1](hand[0](x))) * masked.reshape(1, -1, 1, 1)
        functional.cross_entropy(hand[6](hand[5](hand[4](hand[3](read)))), y).backward()
        assert masked.grad is not None
        velocity = 0.5 * velocity + masked.grad + 0.2 + 0.4 * 0.2 * (1 - 2 * p)
        p = p - 0.3 * velocity
        velocity[(p < 0) | (p > 1)] = 0.0
        p = p.clamp(0, 1)
        bench.step()
        torch.testing.assert_close(bench.state.layer.real.detach(), p)
        torch.testing.assert_close(bench.state.layer.gate.detach(), p)
    with ungated():
        pairs = zip(weights, bench.model.parameters(), strict=True)
        assert bench.held and all(torch.equal(before, now) for before, now in pairs)
    method.stop(bench.state)
    assert not bench.held


def test_the_binary_format_shows_the_mask_and_takes_gradients_straight_through() -> None:
    gate = nn.Parameter(torch.ones(4))
    layer = PruningLayer(gate, 0.5, "binary")
    gate.grad = torch.tensor([1.0, 0.2, 0.6, -1.0])
    layer.step(0.9, 0.0, lambda tensor: tensor)
    assert layer.real.tolist() == pytest.approx([0.1, 0.82, 0.46, 1.0])
    assert gate.tolist() == layer.binary.tolist() == [0, 1, 0, 1]


def test_folding_is_gating() -> None:
    model, (x, _) = net().eval(), data()
    graph = es.trace(model, x)
    values = {name: torch.rand(size) for name, size in graph.sizes.items()}
    with gates(model, graph, list(values)) as opened:
        for name, gate in opened.items():
            gate.detach().copy_(values[name])
        gated = model(x).detach()
    before = model(x).detach()
    fold_gates_(model, graph, values)
    torch.testing.assert_close(model(x).detach(), gated)
    assert (before - gated).abs().max() > 1e-3


def test_what_is_kept_folds_its_factor_and_the_cut_is_what_the_mask_showed() -> None:
    p = torch.tensor([0.9, 0.1, 0.6, 1.0, 0.2, 0.7])
    bench = Bench(C2S2(trials=1, lr=1e-9), 0.9, steps=4)
    x, _ = data()
    with ungated():
        masked = copy.deepcopy(bench.model).eval()
    with torch.no_grad():
        masked[3].weight.mul_((p * (p >= 0.5)).reshape(1, -1, 1, 1))
    plan = bench.step(p)
    assert plan.keep == {"0.weight:0": (0, 2, 3, 5)}
    masked[1].load_state_dict(bench.state.before.held[1].state_dict())
    torch.testing.assert_close(bench.model.eval()(x), masked(x), rtol=1e-4, atol=1e-5)


def test_the_controller_accepts_doubles_goes_back_and_halves() -> None:
    """Layer 0: accepted, then undone, then the mean of both strengths; layer 1 begins with the last accepted."""
    method = C2S2(trials=3, strength=0.01, select_ratio=0.5)
    bench = Bench(method, 0.90, 0.899, 0.5, 0.898, steps=12)
    assert (bench.state.select_steps, bench.state.recover_steps) == (1, 1)
    some = torch.tensor([1.0, 0, 1, 1, 1, 1])
    assert (
        bench.step(some).keep == {"0.weight:0": (0, 2, 3, 4, 5)} and bench.state.phase == "recover" and not bench.held
    )
    assert bench.step() is None and bench.state.strength == 0.02 and bench.held  # 0.1 points were lost: accepted
    assert bench.model[0].out_channels == 5
    bench.step(torch.tensor([1.0, 0, 0, 1, 1]))
    weight = bench.state.before.held[0].weight.detach()
    assert bench.model[0].out_channels == 3
    assert isinstance(bench.step(), Restore)  # 40 points: undone
    assert bench.model[0].out_channels == 5 and torch.equal(bench.model[0].weight.detach(), weight)
    assert bench.state.strength == pytest.approx(math.sqrt(0.01 * 0.02))
    bench.step(torch.tensor([1.0, 1, 1, 1, 0]))
    bench.step()
    assert bench.model[0].out_channels == 4 and bench.state.number == 1
    assert bench.state.strength == pytest.approx(math.sqrt(0.01 * 0.02)) and bench.state.names[1] == "3.weight:0"
    (line,) = bench.notes
    assert line.startswith(
        "c2s2: 0.weight:0 keeps 4 of 6 (lambda 0.01: 5, drop +0.10; lambda 0.02: 3, drop +40.00 undone;"
    )
    assert [(one.before, one.after, one.accepted) for one in bench.state.log] == [
        (6, 5, True),
        (5, 3, False),
        (5, 4, True),
    ]
    method.stop(bench.state)


def test_a_mask_that_closes_nothing_costs_no_recovery_and_the_next_is_stronger() -> None:
    bench = Bench(C2S2(trials=2, strength=0.01), 0.9, steps=8)
    assert bench.step(torch.ones(6)) is None
    assert bench.state.strength == 0.02 and bench.state.trial == 1 and bench.state.phase == "select"
    bench.step(torch.ones(6))
    assert bench.state.number == 1 and bench.notes
    bench.method.stop(bench.state)


def test_the_allowance_is_shared_out_by_removable_macs() -> None:
    bench = Bench(C2S2(), 0.9, max_drop=2.0)
    cost, graph = bench.graph.cost().macs, bench.graph
    removable = [cost - graph.cost({name: 1}).macs for name in graph.groups]
    first, second = bench.state.floors
    assert first == pytest.approx(0.9 - 0.02 * removable[0] / sum(removable)) and second == pytest.approx(0.9 - 0.02)
    bench.method.stop(bench.state)
    alone = Bench(C2S2(drop=0.5), 0.9, max_drop=None)
    assert alone.state.floors[-1] == pytest.approx(0.9 - 0.005)
    alone.method.stop(alone.state)


def test_no_more_is_cut_than_the_budget_asks_and_no_layer_is_emptied() -> None:
    bench = Bench(C2S2(), 0.9)
    kept = bench.state._kept("0.weight:0", torch.zeros(6))
    assert len(kept) == 1
    macs = bench.graph.cost({"0.weight:0": 4}).macs
    aim = goal(macs)
    bench.state.goal = aim
    assert bench.state._kept("0.weight:0", torch.tensor([0.1, 0.4, 0.0, 0.9, 0.3, 0.2])) == [1, 3, 4, 5]
    bench.method.stop(bench.state)


def test_a_layer_with_one_channel_left_has_had_its_turns() -> None:
    bench = Bench(C2S2(trials=3), 0.9, 0.9, 0.9, steps=12)
    bench.step(torch.tensor([1.0, 0, 0, 0, 0, 0]))
    bench.step()
    assert bench.state.number == 1 and bench.model[0].out_channels == 1
    bench.step(torch.tensor([1.0, 0, 0, 0, 0]))
    bench.step()
    assert bench.state.phase == "done" and len(bench.notes) == 2
    bench.method.stop(bench.state)
