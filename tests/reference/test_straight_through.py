"""Rounding and signs against PyTorch's own fake quantization, and their gradients against the papers' formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espalier.graph.grids import Dynamic, Grid, Sign, WeightGrid
from espalier.graph.straight_through import rounded, sign


@given(
    bits=st.integers(2, 8),
    exponent=st.integers(-6, 3),
    zero=st.integers(0, 255),
    signed=st.booleans(),
    seed=st.integers(0, 10),
)
def test_rounding_is_pytorchs_fake_quantization(bits: int, exponent: int, zero: int, signed: bool, seed: int) -> None:
    low = -(1 << bits - 1) if signed else 0
    grid = Grid(bits=bits, step=2.0**exponent, zero_point=low + zero % (1 << bits), signed=signed)  # 1 / step is exact
    x = torch.randn(50, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    y = torch.fake_quantize_per_tensor_affine(x, grid.step, grid.zero_point, grid.lowest, grid.highest)
    (wanted,) = torch.autograd.grad(y.sin().sum(), x)
    assert torch.equal(grid.of(x), y)
    (found,) = torch.autograd.grad(grid.of(x).sin().sum(), x)
    assert torch.equal(found, wanted)
    assert torch.equal(grid.of(grid.of(x)), grid.of(x))  # once there, it stays


def test_a_grid_a_channel_is_pytorchs_too() -> None:
    x, step = torch.randn(4, 6, 3), torch.tensor([0.25, 0.5, 0.125, 1.0])
    grid = WeightGrid(bits=3, step=step, axis=0)
    wanted = torch.fake_quantize_per_channel_affine(x, step, torch.zeros(4, dtype=torch.int32), 0, -4, 3)
    assert torch.equal(grid.value(grid.integers(x), x.dtype), wanted)
    assert torch.equal(rounded(x, grid.over(3), 0, -4, 3), wanted)


@given(bits=st.integers(2, 8), seed=st.integers(0, 20), offset=st.floats(-3, 3))
def test_a_dynamic_grid_is_that_of_dynamic_quantize_linear(bits: int, seed: int, offset: float) -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) + offset
    for per, rows in (("token", list(x)), ("tensor", [x])):
        found = Dynamic(bits=bits, per=per).of(x)  # type: ignore[arg-type]
        for row, y in zip(rows, found if per == "token" else [found], strict=True):
            low, high = min(0.0, float(row.min())), max(0.0, float(row.max()))
            step = torch.tensor(high - low) / (2**bits - 1)
            zero = torch.round(-torch.tensor(low) / step)
            wanted = (torch.clamp((row / step).round() + zero, 0, 2**bits - 1) - zero) * step
            assert torch.allclose(y, wanted, atol=1e-6)
    assert torch.equal(Dynamic().of(torch.zeros(2, 3)), torch.zeros(2, 3))
    several = Dynamic().of(torch.cat([x, 100 * x]))
    assert torch.equal(several[:5], Dynamic().of(x))  # a token's numbers are its own affair
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Dynamic().of(y).sum(), y)
    assert torch.equal(gradient, torch.ones_like(y))


def test_signs_and_their_gradient() -> None:
    x = torch.tensor([-2.0, -1.0, -0.3, -0.0, 0.0, 0.7, 1.0, 1.5], requires_grad=True)
    assert sign(x).tolist() == [-1, -1, -1, 1, 1, 1, 1, 1] and torch.equal(Sign().of(x), sign(x))
    (gradient,) = torch.autograd.grad((sign(x) * torch.arange(8)).sum(), x)
    assert gradient.tolist() == [0, 1, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_stay_what_they_are(dtype: torch.dtype) -> None:
    x = torch.randn(4, 5).to(dtype)
    for one in (Grid(step=0.25, signed=True), Dynamic(), Sign()):
        assert one.of(x).dtype is dtype
