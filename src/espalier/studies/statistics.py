"""How much the choice of heuristic matters, and how far an arm takes that influence away.

    a[h, s] = mu + H[h] + e[h, s]          H ~ (0, I), e ~ (0, sigma^2):  one-way random effects

Arrays are (heuristics, seeds), without gaps: one cell a run, the same heuristics and seeds in every arm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..core import EspalierError

Cells = NDArray[np.float64]  # (heuristics, seeds)
_RESAMPLES = 10_000
_LEVEL = 0.95


class StatisticsError(EspalierError):
    """There are too few runs to say anything."""


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % interval; NaN where it cannot be told."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Component:
    """The influence of the heuristic in one arm.

    Attributes:
        value: variance component, at least 0, in the square of the accuracy's unit.
        raw: the same before it is truncated at 0.
        within: variance between the seeds of a heuristic.
        p: of the F test that there is no influence.
    """

    value: float
    raw: float
    within: float
    p: float

    @property
    def deviation(self) -> float:
        """Its square root: what choosing a heuristic by chance moves the accuracy by."""
        return float(np.sqrt(self.value))


def component(cells: Cells) -> Component:
    """Return the variance component of the heuristic.

        I = max(0, (MS_between - MS_within) / S),   F = MS_between / MS_within

    *Source*: Searle, Casella and McCulloch, Variance Components, 1992, section 3.5 (ANOVA estimators).

    Args:
        cells: at least two heuristics and two seeds.

    Raises:
        StatisticsError: fewer.
    """
    checked = _checked(cells)
    heuristics, seeds = checked.shape
    between, within = _mean_squares(checked)
    raw = float((between - within) / seeds)
    ratio = between / within if within > 0 else np.inf if between > 0 else 0.0
    p = float(stats.f.sf(ratio, heuristics - 1, heuristics * (seeds - 1)))
    return Component(max(0.0, raw), raw, float(within), p)


def reduction(base: Cells, arm: Cells, *, seed: int = 0, resamples: int = _RESAMPLES) -> Interval:
    """Return which share of the heuristic's variance component an arm takes away, with a bootstrap interval.

        1 - I_arm / I_base;   percentiles over heuristics drawn with replacement, the same ones in both arms

    A resample in which the base shows no influence says nothing about a share of it; where these are more than the
    tails that the interval leaves out, it cannot be told. In simulations with 16 to 30 heuristics and clear influence
    the interval held the truth 92 to 94 times of 100.

    Args:
        base, arm: cells of the same heuristics and seeds.
        seed: of the resampling.
        resamples: how many.

    Raises:
        StatisticsError: too few cells, or the arms have not the same.
    """
    base, arm = _paired(base, arm)
    index = np.random.default_rng(seed).integers(0, len(base), (resamples, len(base)))
    whole, left = _components(base[index]), _components(arm[index])
    shares = 1 - left[whole > 0] / whole[whole > 0]
    here = component(base).value
    value = 1 - component(arm).value / here if here > 0 else np.nan
    if here <= 0 or len(shares) < (1 + _LEVEL) / 2 * resamples:
        return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(shares, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def difference(base: Cells, arm: Cells) -> Interval:
    """Return the mean of ``arm - base`` with Student's interval over heuristics, each one's seeds averaged.

    Raises:
        StatisticsError: too few cells, or the arms have not the same.
    """
    base, arm = _paired(base, arm)
    each = (arm - base).mean(axis=1)
    return student(each)


def mean(cells: Cells) -> Interval:
    """Return the mean over all cells with Student's interval over heuristics."""
    return student(_checked(cells).mean(axis=1))


def power(ratio: float, heuristics: int, *, level: float = 0.05) -> float:
    """Return how probably a one-sided F test sees that one variance between heuristics is ``ratio`` times another.

        1 - F(F_{1 - level} / ratio),   both degrees of freedom heuristics - 1: seeds do not count

    >>> [round(power(2.5, heuristics), 2) for heuristics in (8, 10, 20, 30)]
    [0.3, 0.36, 0.62, 0.78]
    """
    free = heuristics - 1
    return float(stats.f.sf(stats.f.isf(level, free, free) / ratio, free, free))


def student(values: Cells) -> Interval:
    """Return the mean of two or more values with Student's interval."""
    centre, error = float(values.mean()), float(stats.sem(values))
    if error == 0:
        return Interval(centre, centre, centre)
    low, high = stats.t.interval(_LEVEL, len(values) - 1, loc=centre, scale=error)
    return Interval(centre, float(low), float(high))


def _components(cells: Cells) -> Cells:
    """Return the truncated components of (..., heuristics, seeds)."""
    between, within = _mean_squares(cells)
    return np.maximum(0.0, (between - within) / cells.shape[-1])


def _mean_squares(cells: Cells) -> tuple[Cells, Cells]:
    """Return the mean squares between heuristics and within them, over the last two dimensions."""
    heuristics, seeds = cells.shape[-2:]
    means = cells.mean(axis=-1)
    between = seeds * means.var(axis=-1, ddof=1)
    within = ((cells - means[..., None]) ** 2).sum(axis=(-1, -2)) / (heuristics * (seeds - 1))
    return between, within


def _paired(base: Cells, arm: Cells) -> tuple[Cells, Cells]:
    base, arm = _checked(base), _checked(arm)
    if base.shape != arm.shape:
        raise StatisticsError(f"the arms have not the same runs: {base.shape} and {arm.shape}")
    return base, arm


def _checked(cells: Cells) -> Cells:
    found = np.asarray(cells, dtype=np.float64)
    if found.ndim != 2 or min(found.shape) < 2 or not np.isfinite(found).all():
        raise StatisticsError(
            "a variance between heuristics needs two heuristics and two seeds at least, and all runs of them, "
            f"not {found.shape}"
        )
    return found
