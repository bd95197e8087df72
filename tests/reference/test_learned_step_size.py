"""LSQ: its gradients are those of the paper's formula, written with detached roundings as in its appendix."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from espalier.graph.grids import WeightGrid
from espalier.methods.quantizing.learned_step_size import LearnedStepSize, learned
from espalier.methods.quantizing.straight_through import StraightThrough, largest


def appendix(x: Tensor, step: Tensor, lowest: int, highest: int, features: int) -> Tensor:
    """Return the quantized numbers as the paper's own code does: the gradients come out of autograd."""
    factor = 1 / math.sqrt(features * highest)
    step = (step - step * factor).detach() + step * factor
    clipped = (x / step).clamp(lowest, highest)
    return ((clipped.round() - clipped).detach() + clipped) * step


@settings(max_examples=30)
@given(bits=st.integers(2, 8), seed=st.integers(0, 50), signed=st.booleans())
def test_an_inputs_step_has_the_papers_gradient(bits: int, seed: int, signed: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    low = -(1 << bits - 1) if signed else 0
    high = low + (1 << bits) - 1
    x = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    step = torch.tensor(1.5 / high, dtype=torch.float64).requires_grad_()
    weight = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    wanted = appendix(x, step, low, high, features=21)
    found = learned(x, step, low, high)
    assert torch.allclose(found, wanted)
    for a, b in zip(
        torch.autograd.grad((found * weight).sum(), (x, step)),
        torch.autograd.grad((wanted * weight).sum(), (x, step)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-10)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weights_steps_have_the_papers_gradient(axis: int) -> None:
    torch.manual_seed(0)
    real = torch.randn(5, 6, 3).requires_grad_()
    step = (torch.rand(real.shape[axis]) * 0.3 + 0.1).requires_grad_()
    grid = WeightGrid(bits=3, step=step.detach().clone(), axis=axis)
    given = torch.randn(5, 6, 3)
    shape = [-1 if d == axis else 1 for d in range(3)]
    shown = appendix(real, step.reshape(shape), -4, 3, features=real.numel() // len(step))
    wanted = torch.autograd.grad((shown * given).sum(), (real, step))
    state = SimpleNamespace(more={})
    levels = real.detach() / grid.over(3)
    found = LearnedStepSize().gradient(state, "w", given, levels, grid)  # type: ignore[arg-type]
    assert torch.allclose(found, wanted[0]) and torch.allclose(state.more["gradient/w"], wanted[1], atol=1e-5)


def test_plain_gradients_pass_where_nothing_was_clipped_and_steps_follow_the_largest() -> None:
    grid = WeightGrid(bits=2, step=torch.tensor([0.5, 2.0]))
    real = torch.tensor([[0.4, 0.9, -1.1], [-9.0, 1.0, 3.0]])
    found = StraightThrough().gradient(None, "w", torch.ones(2, 3), real / grid.over(2), grid)  # type: ignore[arg-type]
    assert found.tolist() == [[1, 0, 1], [0, 1, 0]]
    assert largest(real, grid).tolist() == pytest.approx([1.1, 9.0])
    assert float(largest(real, WeightGrid(bits=2, step=torch.tensor(1.0)))) == 9.0
