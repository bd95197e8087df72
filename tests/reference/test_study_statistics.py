"""The statistics of a study: by hand, against statsmodels and scipy, and on simulated studies whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from espalier.studies.rankings import kendall
from espalier.studies.statistics import StatisticsError, component, difference, mean, power, reduction

CELLS = np.array([[0.90, 0.92], [0.80, 0.84], [0.70, 0.72], [0.88, 0.86]])


def simulated(rng: np.random.Generator, heuristics: int, influence: float, noise: float = 0.3) -> NDArray[np.float64]:
    return rng.normal(0, influence**0.5, (heuristics, 1)) + rng.normal(0, noise, (heuristics, 2))


def test_a_component_by_hand() -> None:
    cells = np.array([[1.0, 3.0], [5.0, 7.0]])  # means 2 and 6; MS_between 2 * 8 = 16, MS_within (2 + 2) / 2 = 2
    found = component(cells)
    assert (found.value, found.raw, found.within) == (7.0, 7.0, 2.0)
    assert found.deviation == pytest.approx(7**0.5) and found.p == pytest.approx(stats.f.sf(8.0, 1, 2))


def test_a_component_is_that_of_statsmodels() -> None:
    pandas = pytest.importorskip("pandas")
    models = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    rows = [{"h": f"h{i}", "a": value} for i, row in enumerate(CELLS) for value in row]
    table = anova.anova_lm(models.ols("a ~ C(h)", pandas.DataFrame(rows)).fit())
    between, within = table["mean_sq"]
    found = component(CELLS)
    assert found.value == pytest.approx((between - within) / 2) and found.p == pytest.approx(table["PR(>F)"].iloc[0])
    assert found.within == pytest.approx(within)


def test_a_negative_component_is_zero_and_says_what_it_was() -> None:
    found = component(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert found.value == 0.0 and found.raw == pytest.approx(-0.25) and found.p == 1.0


def test_a_component_is_right_on_average() -> None:
    rng = np.random.default_rng(1)
    found = [component(simulated(rng, 20, 2.0)).raw for _ in range(400)]
    assert np.mean(found) == pytest.approx(2.0, abs=4 * np.std(found) / 20)


def test_the_reductions_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for number in range(200):
        base, arm = simulated(rng, 20, 1.0), simulated(rng, 20, 0.4)
        found = reduction(base, arm, seed=number, resamples=400)
        held += found.low <= 0.6 <= found.high
    assert 0.86 <= held / 200 <= 0.99  # 0.92 to 0.94 in long simulations; 200 studies are seen to within 0.05


def test_a_reduction_that_is_known_exactly() -> None:
    centred = CELLS - CELLS.mean()
    found = reduction(CELLS, CELLS.mean() + centred / 2)  # half the spread everywhere: a quarter of every variance
    assert [found.value, found.low, found.high] == pytest.approx([0.75] * 3) and found.excludes_zero
    same = reduction(CELLS, CELLS)
    assert same.value == same.low == same.high == 0.0 and not same.excludes_zero


def test_a_reduction_of_nothing_cannot_be_told() -> None:
    found = reduction(np.array([[0.0, 1.0], [1.0, 0.0]]), CELLS[:2])
    assert np.isnan([found.value, found.low, found.high]).all() and not found.excludes_zero
    weak = reduction(np.array([[0.0, 0.1], [0.1, 0.0], [0.3, 0.3]]), np.zeros((3, 2)))
    assert weak.value == 1.0 and np.isnan([weak.low, weak.high]).all()  # one heuristic of three makes it all


def test_a_difference_is_the_paired_t_interval_over_heuristics() -> None:
    arm = CELLS + np.array([[0.02, 0.04], [0.10, 0.08], [0.2, 0.1], [0.0, 0.01]])
    found = difference(CELLS, arm)
    reference = stats.ttest_rel(arm.mean(1), CELLS.mean(1)).confidence_interval()
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))
    assert found.value == pytest.approx((arm - CELLS).mean())
    assert mean(CELLS).value == pytest.approx(CELLS.mean())
    shifted = difference(CELLS, CELLS + 0.01)
    assert shifted.low == pytest.approx(0.01) and shifted.high == pytest.approx(0.01)


def test_the_power_table() -> None:
    assert [round(power(2.5, count), 2) for count in (8, 10, 20, 30)] == [0.30, 0.36, 0.62, 0.78]
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 2.5**0.5, (4000, 10)), rng.normal(0, 1, (4000, 10))
    seen = first.var(1, ddof=1) / second.var(1, ddof=1) > stats.f.isf(0.05, 9, 9)
    assert seen.mean() == pytest.approx(power(2.5, 10), abs=0.03)


@pytest.mark.parametrize("cells", [np.zeros((1, 2)), np.zeros((3, 1)), np.full((3, 2), np.nan), np.zeros(3)])
def test_too_few_runs_are_refused(cells: NDArray[np.float64]) -> None:
    with pytest.raises(StatisticsError, match="two heuristics and two seeds"):
        component(cells)


def test_arms_of_different_runs_are_refused() -> None:
    with pytest.raises(StatisticsError, match="not the same runs"):
        difference(CELLS, CELLS[:3])


def test_tau_is_scipys_within_a_group_and_pairs_of_groups_do_not_count() -> None:
    rng = np.random.default_rng(4)
    scores = [{"a": rng.normal(size=9), "b": rng.normal(size=5)} for _ in range(3)]
    found = kendall(scores)
    for i in range(3):
        for j in range(3):
            taus = [stats.kendalltau(scores[i][group], scores[j][group]).statistic for group in "ab"]
            assert found[i, j] == pytest.approx((36 * taus[0] + 10 * taus[1]) / 46)
    moved = {"a": scores[0]["a"] + 100, "b": scores[0]["b"]}
    assert kendall([scores[0], moved])[0, 1] == pytest.approx(1.0)
    turned = {group: -values for group, values in scores[0].items()}
    assert kendall([scores[0], turned])[0, 1] == pytest.approx(-1.0)
    constant = {group: np.zeros_like(values) for group, values in scores[0].items()}
    assert kendall([scores[0], constant])[0, 1] == 0.0 and np.isnan(kendall([{"a": [1.0]}])[0, 0])
