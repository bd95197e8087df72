"""Losses on outputs against their formulas written with numpy, whatever their kind."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier.losses import (
    DistillationError,
    Ensemble,
    Hinton,
    LogitRegression,
    Objective,
)

T = torch.float64


class Answering(nn.Module):
    """A network that answers with given logits, whatever it is asked."""

    def __init__(self, logits: Tensor, wrap: Any = lambda z: z) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.logits * 1)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=T)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def asked(
    objective: Objective, teachers: Any, student: nn.Module, targets: Any = None, task_loss: float = 2.0
) -> Tensor:
    x = torch.zeros(1)
    with objective.attached(teachers, student) as term:
        return term(x, student(x), targets, torch.tensor(task_loss, dtype=T))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return sum(float(a * (math.log(a) - math.log(b))) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 2.5, 20.0])
@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (0.2, 1.0, 2.0)])
def test_hinton_is_its_formula(temperature: float, weights: tuple[float, ...]) -> None:
    own, theirs = logits(5, 4), [logits(5, 4, seed=m + 1) for m in range(len(weights))]
    expected = 0.0
    for n in range(5):
        p = sum(w / sum(weights) * softmax(z[n].numpy() / temperature) for w, z in zip(weights, theirs, strict=True))
        expected += temperature**2 * kl(np.asarray(p), softmax(own[n].numpy() / temperature)) / 5
    teachers = Ensemble(tuple(Answering(z) for z in theirs), weights)
    found = asked(Hinton(temperature=temperature, weight=0.25), teachers, Answering(own))
    assert found.item() == pytest.approx(0.75 * 2.0 + 0.25 * expected, rel=1e-12)


def test_averaged_probabilities_are_not_averaged_logits() -> None:
    theirs = [torch.tensor([[8.0, 0.0, 0.0]], dtype=T), torch.tensor([[0.0, 2.0, 0.0]], dtype=T)]
    mean = sum(functional.softmax(z, 1) for z in theirs) / 2
    own = Answering(mean.log())  # the student that says just that
    teachers = [Answering(z) for z in theirs]
    assert asked(Hinton(temperature=1, weight=1), teachers, own).item() == pytest.approx(0, abs=1e-12)
    blunt = Answering((theirs[0] + theirs[1]) / 2)
    assert asked(Hinton(temperature=1, weight=1), teachers, blunt).item() > 0.01


def test_a_list_of_teachers_is_an_ensemble_of_equals() -> None:
    own, teachers = Answering(logits(5, 4)), [Answering(logits(5, 4, seed=m)) for m in (1, 2)]
    for objective in (Hinton(), LogitRegression()):
        same = asked(objective, Ensemble(tuple(teachers), (3.0, 3.0)), own)
        assert torch.equal(asked(objective, teachers, own), same)


def test_the_gradient_keeps_its_size_when_the_temperature_changes() -> None:
    theirs = 0.3 * logits(64, 10, seed=1)
    sizes = []
    for temperature in (1.0, 2.0, 4.0, 8.0, 32.0):
        student = Answering(0.3 * logits(64, 10))
        asked(Hinton(temperature=temperature, weight=1), Answering(theirs), student).backward()
        sizes.append(float(student.logits.grad.norm()))  # type: ignore[union-attr]
    assert max(sizes) / min(sizes) < 1.6, sizes  # without T^2 it would be about 32, with T^1 or T^3 about 32 too
    # and at a high temperature it is the gradient of logit regression on centred logits
    student = Answering(logits(64, 10))
    asked(LogitRegression(weight=1), Answering(logits(64, 10, seed=1)), student).backward()
    limit = student.logits.grad
    student = Answering(logits(64, 10))
    asked(Hinton(temperature=1e4, weight=1), Answering(logits(64, 10, seed=1)), student).backward()
    centred = limit - limit.mean(1, keepdim=True)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(student.logits.grad, centred, rtol=1e-2, atol=1e-4)  # type: ignore[operator]


def test_hinton_stays_finite_where_probabilities_underflow() -> None:
    own = Answering(torch.tensor([[300.0, -300.0, 0.0]]))
    theirs = Answering(torch.tensor([[-300.0, 300.0, 0.0]]))
    loss = asked(Hinton(temperature=1, weight=1), theirs, own)
    loss.backward()
    assert loss.item() == pytest.approx(600.0)
    assert torch.isfinite(own.logits.grad).all()  # type: ignore[arg-type]


def test_logit_regression_is_its_formula() -> None:
    own, theirs = logits(5, 4), logits(5, 4, seed=1)
    expected = np.mean([0.125 * sum((a - b) ** 2 for a, b in zip(own[n], theirs[n], strict=True)) for n in range(5)])
    found = asked(LogitRegression(weight=0.5), Answering(theirs), Answering(own))
    assert found.item() == pytest.approx(0.5 * 2.0 + 0.5 * float(expected), rel=1e-12)


def test_logit_regression_on_several_teachers() -> None:
    own, theirs = logits(5, 4), [logits(5, 4, seed=m) for m in (1, 2)]
    expected = 0.0
    for n in range(5):
        p = sum(softmax(z[n].numpy()) for z in theirs) / 2
        level = sum(math.log(np.exp(z[n].numpy()).sum()) for z in theirs) / 2
        expected += 0.125 * float(((own[n].numpy() - np.log(p) - level) ** 2).sum()) / 5
    teachers = [Answering(z) for z in theirs]
    assert asked(LogitRegression(weight=1), teachers, Answering(own)).item() == pytest.approx(expected, rel=1e-12)
    # twice the same teacher is that teacher
    twice = asked(LogitRegression(weight=1), [Answering(theirs[0]), Answering(theirs[0])], Answering(own))
    once = asked(LogitRegression(weight=1), Answering(theirs[0]), Answering(own))
    assert twice.item() == pytest.approx(once.item(), rel=1e-12)


@pytest.mark.parametrize("objective", [Hinton(temperature=2, weight=1), LogitRegression(weight=1)], ids=type)
def test_void_pixels_do_not_count(objective: Objective) -> None:
    own, theirs = logits(2, 3, 4, 5), logits(2, 3, 4, 5, seed=1)
    targets = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    targets[0, :2], targets[1, 3, 1] = 255, -100
    rows = [(b, h, w) for b in range(2) for h in range(4) for w in range(5) if 0 <= targets[b, h, w] < 3]
    picked = [torch.stack([z[b, :, h, w] for b, h, w in rows]) for z in (own, theirs)]
    expected = asked(objective, Answering(picked[1]), Answering(picked[0]))
    student = Answering(own)
    found = asked(objective, Answering(theirs), student, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    found.backward()
    assert not student.logits.grad[0, :, :2].any()  # type: ignore[index]
    assert asked(objective, Answering(theirs), Answering(own), torch.full_like(targets, 255)).item() == 0.0


def test_void_pixels_of_a_larger_target() -> None:
    own, theirs = logits(1, 3, 2, 2), logits(1, 3, 2, 2, seed=1)
    targets = torch.tensor([[0, 255], [1, 2]]).repeat_interleave(4, 0).repeat_interleave(4, 1)[None]
    small = torch.tensor([[[0, 255], [1, 2]]])
    objective = Hinton(weight=1)
    large, exact = (asked(objective, Answering(theirs), Answering(own), t) for t in (targets, small))
    assert large.item() == exact.item() != asked(objective, Answering(theirs), Answering(own)).item()


def test_tokens_have_their_classes_last() -> None:
    own, theirs = logits(2, 5, 3), logits(2, 5, 3, seed=1)
    targets = torch.tensor([[0, 1, 2, -100, -100], [0, 1, 1, 1, -100]])
    kept = (targets >= 0).flatten()
    objective = Hinton(weight=1)
    expected = asked(objective, Answering(theirs.flatten(0, 1)[kept]), Answering(own.flatten(0, 1)[kept]))
    assert asked(objective, Answering(theirs), Answering(own), targets).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "targets",
    [torch.tensor([0, 1, 2]), torch.full((3, 4), 0.25), (torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0]), 0.3), None],
    ids=["numbers", "mixup", "pairs", "none"],
)
def test_targets_of_every_kind(targets: Any) -> None:
    own, theirs = logits(3, 4), logits(3, 4, seed=1)
    expected = asked(Hinton(weight=1), Answering(theirs), Answering(own))
    assert asked(Hinton(weight=1), Answering(theirs), Answering(own), targets).item() == expected.item()


@pytest.mark.parametrize(
    "wrap",
    [lambda z: SimpleNamespace(logits=z), lambda z: {"out": z}, lambda z: (z, None)],
    ids=["hf", "dict", "tuple"],
)
def test_outputs_of_every_kind(wrap: Any) -> None:
    own, theirs = logits(3, 4), logits(3, 4, seed=1)
    expected = asked(Hinton(), Answering(theirs), Answering(own))
    assert asked(Hinton(), Answering(theirs, wrap), Answering(own, wrap)).item() == expected.item()
    assert asked(Hinton(), Answering(theirs, wrap), Answering(own)).item() == expected.item()


def test_other_classes_are_refused() -> None:
    with pytest.raises(DistillationError, match=r"\(3, 4\), a teacher with \(3, 5\)"):
        asked(Hinton(), Answering(logits(3, 5)), Answering(logits(3, 4)))
