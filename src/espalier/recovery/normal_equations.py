"""Normal equations: the least-squares change of a layer's weights, from sums that are streamed.

    residual r = target - W x           (x with a 1 at its end where the layer may change its offset)
    D = argmin  sum |r - D x|^2 + ridge * sum_f a_ff D_f^2   =   C (A + ridge * diag A)^-1
    A = sum x x^T,    C = sum r x^T

The ridge draws towards the weights as they are: at infinity nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class Moments:
    """Sums over rows; every group of a grouped layer has its own.

    Attributes:
        features: A, (groups, features, features).
        cross: C, (groups, outputs, features).
        residual: sum of r^2, (groups, outputs).
        target: sum of (target - its mean)^2, (groups, outputs), the mean being that of each batch.
    """

    features: Tensor
    cross: Tensor
    residual: Tensor
    target: Tensor

    @classmethod
    def of(cls, x: Tensor, residual: Tensor, target: Tensor) -> Moments:
        """Sum rows: ``x`` (groups, rows, features), ``residual`` and ``target`` (groups, rows, outputs).

        The rows of one batch are multiplied in their own precision (float32 is twice as fast); batches add in float64.
        """
        spread = target - target.mean(1, keepdim=True)
        sums = x.mT @ x, residual.mT @ x, residual.square().sum(1), spread.square().sum(1)
        return cls(*(one.double() for one in sums))

    def __add__(self, other: Moments) -> Moments:
        """Return the sums over both."""
        return Moments(
            self.features + other.features,
            self.cross + other.cross,
            self.residual + other.residual,
            self.target + other.target,
        )

    def solve(self, ridge: float) -> Tensor | None:
        """Return D, (groups, outputs, features), or None where the equations cannot be solved."""
        diagonal = self.features.diagonal(dim1=-2, dim2=-1)
        floor = diagonal.amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny) * 1e-12  # of silent features
        scale = diagonal.clamp_min(floor).rsqrt()
        scaled = scale[:, :, None] * self.features * scale[:, None, :]
        scaled = scaled + ridge * torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
        factor, failed = torch.linalg.cholesky_ex(scaled)
        if failed.any():
            return None
        return torch.cholesky_solve((self.cross * scale[:, None, :]).mT, factor).mT * scale[:, None, :]

    def error(self, change: Tensor | None = None) -> Tensor:
        """Return the sum of squared residuals after ``change``, (groups, outputs)."""
        if change is None:
            return self.residual
        quadratic = ((change @ self.features) * change).sum(-1)
        return self.residual - 2 * (change * self.cross).sum(-1) + quadratic


@dataclass(frozen=True, eq=False)
class Solution:
    """The change that did best on held-out rows.

    Attributes:
        change: D, or None where no change did better than none.
        ridge: its ridge.
        before, after: weighted squared error on held-out rows, relative to the targets' variance.
    """

    change: Tensor | None
    ridge: float | None
    before: float
    after: float


def choose(fitted: Moments, held_out: Moments, ridges: Sequence[float], weights: Tensor | None = None) -> Solution:
    """Solve with smaller and smaller ridges while that helps on held-out rows, and return the best solution.

    Args:
        fitted, held_out: sums over the rows to fit, and over others.
        ridges: candidates; no change at all is always one more.
        weights: what an output's squared error counts, (groups, outputs); 1 without it.
    """
    weights = torch.ones_like(held_out.residual) if weights is None else weights
    whole = max(float((weights * held_out.target).sum()), torch.finfo(torch.float64).tiny)
    before = float((weights * held_out.error()).sum()) / whole
    best = Solution(None, None, before, before)
    for ridge in sorted(ridges, reverse=True):
        change = fitted.solve(ridge)
        if change is None or not change.isfinite().all():
            break
        after = float((weights * held_out.error(change)).sum()) / whole
        if after >= best.after and best.change is not None:
            break
        if after < best.after:
            best = Solution(change, ridge, before, max(after, 0.0))
    return best
