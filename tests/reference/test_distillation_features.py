"""Losses on features against their formulas written with numpy, sample by sample."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from espalier.losses import (
    AttentionTransfer,
    Ensemble,
    FeatureHints,
    Hinton,
    Objective,
    Together,
)
from espalier.losses.attention_transfer import attention_map

T = torch.float64


class Convolutions(nn.Module):
    """Two stages of pixels, or, as tokens, linear layers."""

    def __init__(self, widths: tuple[int, int] = (4, 6)) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, widths[0], 3, padding=1)
        self.two = nn.Conv2d(widths[0], widths[1], 3, stride=2, padding=1)
        self.head = nn.Linear(widths[1], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(torch.tanh(self.one(x))).mean((2, 3)))


def networks() -> tuple[Convolutions, Convolutions, Tensor]:
    torch.manual_seed(0)
    return Convolutions().to(T), Convolutions().to(T), torch.randn(3, 3, 6, 6, dtype=T)


def distance(objective: Objective, teachers: Any, student: nn.Module, x: Tensor) -> float:
    with objective.attached(teachers, student) as term:
        return term(x, student(x), None, torch.zeros((), dtype=T)).item()


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_attention_transfer_is_its_formula(power: float) -> None:
    teacher, student, x = networks()
    expected = []
    for layer in ("one", "two"):
        features = {}
        for name, model in (("t", teacher), ("s", student)):
            h = model.one(x)
            features[name] = (h if layer == "one" else model.two(torch.tanh(h))).detach().numpy()
        samples = []
        for n in range(3):
            maps = [(np.abs(features[name][n]) ** power).sum(0).ravel() for name in "ts"]
            maps = [m / math.sqrt((m**2).sum()) for m in maps]
            samples.append(0.5 * ((maps[0] - maps[1]) ** 2).sum())
        expected.append(np.mean(samples))
    objective = AttentionTransfer(weight=3.0, power=power, layers=("one", "two"))
    assert distance(objective, teacher, student, x) == pytest.approx(3 * float(np.mean(expected)), rel=1e-9)


def test_attention_needs_no_equal_widths_and_ignores_scale() -> None:
    teacher, _, x = networks()
    wide = Convolutions((8, 12)).to(T)
    objective = AttentionTransfer(weight=1, layers=("one",))
    assert 0 < distance(objective, teacher, wide, x) < 1
    with torch.no_grad():
        wide.one.weight.copy_(teacher.one.weight.repeat(2, 1, 1, 1) * 5)
        wide.one.bias.copy_(teacher.one.bias.repeat(2) * 5)
    assert distance(objective, teacher, wide, x) == pytest.approx(0, abs=1e-12)


def test_attention_maps_of_tokens_and_of_silence() -> None:
    tokens = torch.randn(2, 5, 7, dtype=T)
    expected = [[float((row**2).sum()) for row in sample] for sample in tokens.numpy()]
    expected = [np.array(sample) / np.linalg.norm(sample) for sample in expected]
    np.testing.assert_allclose(attention_map(tokens, 2, 2.0).numpy(), expected)
    silent = torch.zeros(2, 5, 7, requires_grad=True)
    attention_map(silent, 2, 2.0).sum().backward()
    assert torch.isfinite(silent.grad).all()  # type: ignore[arg-type]


def test_feature_hints_are_their_formula() -> None:
    teacher, student, x = networks()
    expected = []
    a, b = teacher.one(x).detach().numpy(), student.one(x).detach().numpy()
    expected.append(((a - b) ** 2).sum() / (a**2).sum())
    a, b = (m.two(torch.tanh(m.one(x))).detach().numpy() for m in (teacher, student))
    expected.append(((a - b) ** 2).sum() / (a**2).sum())
    objective = FeatureHints(weight=2.0, layers=("one", "two"))
    assert distance(objective, teacher, student, x) == pytest.approx(2 * float(np.mean(expected)), rel=1e-9)
    assert distance(FeatureHints(), teacher, student, x) == pytest.approx(10 * float(np.mean(expected)), rel=1e-9)


def test_features_of_several_teachers_count_by_weight() -> None:
    teacher, student, x = networks()
    other = Convolutions().to(T)
    for objective in (FeatureHints(), AttentionTransfer()):
        one, two = (distance(objective, t, student, x) for t in (teacher, other))
        both = distance(objective, Ensemble((teacher, other), (3.0, 1.0)), student, x)
        assert both == pytest.approx(0.75 * one + 0.25 * two, rel=1e-9)


def test_objectives_together() -> None:
    teacher, student, x = networks()
    hinton, attention = Hinton(weight=0.6), AttentionTransfer(weight=5.0)
    task_loss, zero = torch.tensor(1.5, dtype=T), torch.zeros((), dtype=T)
    with Together((hinton, attention)).attached(teacher, student) as term:
        both = term(x, student(x), None, task_loss).item()
    with hinton.attached(teacher, student) as term:
        first = term(x, student(x), None, task_loss).item()
    with attention.attached(teacher, student) as term:
        second = term(x, student(x), None, zero).item()
    assert both == pytest.approx(first + second, rel=1e-9)
