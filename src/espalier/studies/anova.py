"""Two-way analysis of variance of a balanced table with repetitions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from .statistics import Cells, StatisticsError


@dataclass(frozen=True)
class Effect:
    """One line of the table.

    Attributes:
        name: of the factor.
        squares: its sum of squares.
        freedom: its degrees of freedom.
        ratio: F.
        p: probability of such an F, or a larger one, without any effect.
        share: of the whole sum of squares.
    """

    name: str
    squares: float
    freedom: int
    ratio: float
    p: float
    share: float


def two_way(cells: Cells, names: tuple[str, str]) -> tuple[Effect, Effect, Effect]:
    """Return the effects of both factors, and of their interaction.

        a[i, j, k] = mu + A[i] + B[j] + AB[i, j] + e[i, j, k];   F = MS(effect) / MS(e)

    Args:
        cells: (levels of the first factor, levels of the second, repetitions), each at least two.
        names: of the factors.

    Raises:
        StatisticsError: fewer.
    """
    found = np.asarray(cells, dtype=np.float64)
    if found.ndim != 3 or min(found.shape) < 2 or not np.isfinite(found).all():
        raise StatisticsError(
            f"a two-way analysis of variance needs two levels of each factor and two seeds at least, not {found.shape}"
        )
    a, b, n = found.shape
    centre, first, second, each = found.mean(), found.mean((1, 2)), found.mean((0, 2)), found.mean(2)
    squares = (
        b * n * float(((first - centre) ** 2).sum()),
        a * n * float(((second - centre) ** 2).sum()),
        n * float(((each - first[:, None] - second + centre) ** 2).sum()),
    )
    rest, free = float(((found - each[..., None]) ** 2).sum()), a * b * (n - 1)
    total = sum(squares) + rest
    freedom = (a - 1, b - 1, (a - 1) * (b - 1))
    first_, second_, both = (
        _effect(name, square, own, (rest, free), total)
        for name, square, own in zip((*names, f"{names[0]} with {names[1]}"), squares, freedom, strict=True)
    )
    return first_, second_, both


def _effect(name: str, squares: float, freedom: int, rest: tuple[float, int], total: float) -> Effect:
    error = rest[0] / rest[1]
    ratio = squares / freedom / error if error > 0 else (np.inf if squares > 0 else 0.0)
    return Effect(
        name, squares, freedom, ratio, float(stats.f.sf(ratio, freedom, rest[1])), squares / total if total else 0.0
    )
