"""Soft Knowledge Relocation against its formulas, in NumPy and by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.core import Plan
from espalier.graph.probes.gates import ungated
from espalier.methods import MethodError
from espalier.methods.grad_norm import balanced, gradient_norm
from espalier.methods.pruning.soft_knowledge_relocation import SoftKnowledgeRelocation
from espalier.methods.relocation import Relocation, readings_of, ridge, spectral_entropy
from espalier.recipes import Measure, Prune, Recipe, Training
from espalier.recipes.random_search import random_search
from espalier.tasks import SplitError, load_task

from ..laws.stopped_runs import network
from .method_context import context, goal

KEPT, GONE = (0, 2, 3, 5), (1, 4)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3))


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(8, 2, 4, 4), torch.randint(3, (8,))


def begun(method: SoftKnowledgeRelocation, model: nn.Module, **changes: Any) -> Any:
    """Start a method on the plan that loses units 1 and 4 of the first group."""
    x, _ = data()
    graph = es.trace(model, x)
    plan = Plan({"0.weight:0": KEPT}, graph.fingerprint)
    aim = goal(graph.cost().macs - 1, plan=lambda graph, scores: plan)
    state = method.start(model, graph, context(aim, steps=20, batches=[data(), data()], **changes))
    return state


def svd_entropy(matrix: np.ndarray) -> float:
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    shares = squares / squares.sum()
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum() / math.log(min(matrix.shape)))


@pytest.mark.parametrize("shape", [(40, 5), (5, 40)])
def test_spectral_entropy_is_that_of_singular_values(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1)
    assert float(spectral_entropy(torch.from_numpy(matrix))) == pytest.approx(svd_entropy(matrix), abs=1e-9)
    assert float(spectral_entropy(torch.ones(9, 4))) == pytest.approx(0, abs=1e-6)
    assert float(spectral_entropy(torch.eye(4))) == pytest.approx(1)


def test_ridge_solves_its_equations() -> None:
    rng = np.random.default_rng(1)
    s, p = rng.normal(size=(50, 4)), rng.normal(size=(50, 3))
    amount = 0.1 * float((s**2).sum(0).mean())
    stacked = np.concatenate([s, math.sqrt(amount) * np.eye(4)])
    expected = np.linalg.lstsq(stacked, np.concatenate([p, np.zeros((4, 3))]), rcond=None)[0]
    found = ridge(torch.from_numpy(s), torch.from_numpy(p), 0.1, lambda tensor: tensor)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    halves = ridge(torch.from_numpy(s), torch.from_numpy(p), 0.1, lambda tensor: 2 * tensor)  # two ranks with the same
    np.testing.assert_allclose(halves.numpy(), expected, atol=1e-6)


def activations(model: nn.Sequential, x: Tensor) -> Tensor:
    """Return what the second convolution reads: positions x channels."""
    return model[2](model[1](model[0](x))).permute(0, 2, 3, 1).reshape(-1, 6).detach()


@pytest.mark.parametrize("loss", ["energy", "reconstruction", "redundancy", "entropy"])
def test_the_losses_are_their_formulas(loss: Any) -> None:
    model, (x, y) = net().train(), data()
    state = begun(SoftKnowledgeRelocation(loss=loss, balance_lr=0.0, rows=10**6, ridge=0.05), model)
    gates = torch.ones(6)
    gates[list(GONE)] = 0.3
    state._fill_gates(0.3)
    state.method = SoftKnowledgeRelocation(loss=loss, balance_lr=0.0, rows=10**6, ridge=0.05)
    state.count = 5  # of ten; cosine: alpha of the formula is that of the schedule
    alpha = (1 + math.cos(math.pi * state.count / state.steps)) / 2
    outputs = model(x)
    found = state.penalty((x, y), outputs)
    state.close()
    a = activations(model, x).double().numpy()
    a_p, a_s = a[:, list(GONE)], a[:, list(KEPT)]
    weight = model[3].weight.detach()
    if loss == "energy":
        expected = least = float(weight[:, list(GONE)].square().sum())
    elif loss == "reconstruction":
        dense = functional.conv2d(model[2](model[1](model[0](x))), weight, model[3].bias, padding=1)
        read = model[2](model[1](model[0](x)))
        gated = functional.conv2d(read * gates.reshape(1, -1, 1, 1), weight, model[3].bias, padding=1)
        closed = gates.where(gates == 1, 0.0).reshape(1, -1, 1, 1)
        removed = functional.conv2d(read * closed, weight, model[3].bias, padding=1)
        expected, least = (
            float(((dense - z).square().sum() / dense.square().sum()).detach()) for z in (gated, removed)
        )
    elif loss == "redundancy":
        m = ridge(torch.from_numpy(a_s), torch.from_numpy(a_p), 0.05, lambda t: t).double().numpy()
        expected = least = float(((a_p - a_s @ m) ** 2).sum() / (a_p**2).sum())
    else:
        share = (a_p**2).sum() / (a**2).sum()
        expected = 1 - svd_entropy(a_s) + svd_entropy(a_p) * alpha**2 * share
        least = 1 - svd_entropy(a_s) + svd_entropy(a_p) * share
    assert state.reference == pytest.approx(least, rel=1e-4)
    assert float(found.detach()) == pytest.approx(math.log2(1 + expected / least), rel=1e-4)  # both weights are one


def test_reconstruction_begins_at_nothing_and_the_teacher_stays() -> None:
    model, (x, y) = net().train(), data()
    state = begun(SoftKnowledgeRelocation(balance_lr=0.0), model)
    assert float(state.penalty((x, y), model(x)).detach()) == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        model[3].weight.mul_(1.5)
    assert float(state.penalty((x, y), model(x)).detach()) > 1e-3
    state.close()


def test_gates_close_on_schedule_and_then_removal_is_harmless() -> None:
    model, (x, _) = net().eval(), data()
    method = SoftKnowledgeRelocation(loss="energy", relocate_ratio=0.5, schedule="linear")
    state = begun(method, model)
    seen = []
    plan = None
    while plan is None:
        gate = state.gates["0.weight:0"]
        seen.append(float(gate[1]))
        assert float(gate[list(KEPT)].sum()) == 4 and float(gate[4]) == seen[-1]
        gated = model(x)
        plan = method.step(state)
    assert seen == pytest.approx([1 - step / 10 for step in range(10)])
    assert plan.keep == {"0.weight:0": KEPT} and not model._forward_hooks
    state = begun(method, model)
    state._fill_gates(0.0)
    gated = model(x)
    state.close()
    torch.testing.assert_close(es.cut(model, state.graph, plan)(x), gated)


def test_the_baseline_cuts_at_once_and_a_tolerance_cuts_sooner() -> None:
    model, (x, y) = net().train(), data()
    method = SoftKnowledgeRelocation(loss="none")
    assert method.step(begun(method, model)) is not None
    method = SoftKnowledgeRelocation(loss="energy", tolerance=0.5, balance_lr=0.0)
    state = begun(method, model)
    method.penalty(state, (x, y), model(x))
    assert method.step(state) is None
    with torch.no_grad():
        model[3].weight[:, list(GONE)] *= 0.1
    method.penalty(state, (x, y), model(x))
    assert method.step(state) is not None


def test_hard_relocation_is_exact_where_the_survivors_span_all() -> None:
    """rank(A_S) = rank(A): removed channels are combinations of the others, so their removal changes nothing."""
    model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1), nn.Flatten(), nn.Linear(80, 3))
    with torch.no_grad():
        model[0].weight[1] = model[0].weight[0] - 2 * model[0].weight[2]
        model[0].bias[1] = model[0].bias[0] - 2 * model[0].bias[2]
        model[0].weight[4], model[0].bias[4] = 3 * model[0].weight[5], 3 * model[0].bias[5]
    x, _ = data()
    dense = copy.deepcopy(model).eval()(x)
    method = SoftKnowledgeRelocation(loss="hard")
    state = begun(method, model)
    plan = method.step(state)
    assert plan is not None
    small = es.cut(model.eval(), state.graph, plan)
    before = float(((small(x) - dense).norm() / dense.norm()).detach())
    method.after_cut(state, small, es.trace(small, x))
    after = float(((small(x) - dense).norm() / dense.norm()).detach())
    assert before > 0.1 and after < 1e-3 * before


def test_grad_norm_follows_its_formula() -> None:
    weights, norms, progress = [0.7, 1.3], [2.0, 0.92], [0.5, 0.55]
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    g = w * torch.tensor(norms, dtype=torch.float64)
    r = torch.tensor(progress, dtype=torch.float64)
    target = (g.mean() * (r / r.mean()) ** 0.5).detach()
    (g - target).abs().sum().backward()
    assert w.grad is not None
    moved = torch.tensor(weights, dtype=torch.float64) - 0.025 * w.grad / 1.46  # relative to the mean of both norms
    expected = (2 * moved / moved.sum()).tolist()
    assert balanced(weights, norms, progress, power=0.5, lr=0.025) == pytest.approx(expected)
    assert sum(expected) == pytest.approx(2)


def test_gradient_norms_are_of_the_weights_themselves() -> None:
    """Inside the gates' context weights are handed out gated; their gradient is asked for as they are."""
    model, (x, y) = net().train(), data()
    state = begun(SoftKnowledgeRelocation(loss="energy", balance_steps=1), model)
    state._fill_gates(0.3)
    outputs = model(x)
    before = list(state.weights)
    state.penalty((x, y), outputs)
    assert state.weights != before
    energy = state.terms.energy(x, 1.0)
    with ungated():
        found = gradient_norm(energy, [model[3].weight])
    state.close()
    assert found == pytest.approx(2 * float(model[3].weight.detach()[:, list(GONE)].norm()), rel=1e-5)


def test_readings_know_where_flattened_units_sit() -> None:
    model, (x, _) = net(), data()
    graph = es.trace(model, x)
    (one,) = readings_of(model, graph, Plan({"3.weight:0": (0, 1, 3, 4)}))
    assert one.module == "6" and one.gone.tolist() == list(range(32, 48)) and len(one.kept) == 64
    assert isinstance(Relocation(model, [one], None, 8, 1.0, lambda t: t), Relocation)


def test_random_search_judges_by_validation_and_never_reads_the_test_split() -> None:
    task = load_task("digits", batch_size=128)
    prune = Prune(method="soft_knowledge_relocation", macs=0.5, finetune=Training(epochs=1, lr=0.05))
    recipe = Recipe(steps=(prune, Measure(latency=False)))
    space = {"loss": ("energy", "none"), "relocate_ratio": (0.25, 0.5)}
    told: list[Any] = []
    tried = random_search(network(), task, recipe, space=space, trials=3, on_trial=told.append)
    assert len(tried) == 3 == len(told) and len({str(one.options) for one in tried}) == 3
    assert [one.score for one in tried] == sorted((one.score for one in tried), reverse=True)
    assert task.test_reads == 0
    task.test_once({"small": network()})
    with pytest.raises(SplitError):
        task.test_once({"small": network()})
    with pytest.raises(MethodError, match="no hyperparameter 'los'"):
        random_search(network(), task, recipe, space={"los": ("energy",)})
    with pytest.raises(MethodError, match="the recipe has 0 methods"):
        random_search(network(), task, Recipe(steps=(Prune(macs=0.5),)))
