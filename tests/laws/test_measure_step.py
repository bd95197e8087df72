"""How a run's networks are timed at its end: as the step says, else as the budget was, else so that timing works."""

from __future__ import annotations

import pytest

from espalier.core import Cost
from espalier.recipes import Measure, Prune, Recipe
from espalier.recipes.stages.measure import _conditions

SMALL, LARGE = Cost(10**6, 1, 1), Cost(10**10, 1, 1)
ASKED = Prune(latency_ratio=0.5, backend="onnxruntime", threads=2, latency_batch=4)


def conditions(measure: Measure, *steps: Prune, dense: Cost = SMALL):
    return _conditions(measure, Recipe(steps=(*steps, measure)), dense)


@pytest.mark.parametrize(
    ("measure", "dense", "inputs", "why"),
    [
        (Measure(), SMALL, 64, " (enough to time well)"),
        (Measure(), LARGE, 1, ""),
        (Measure(batch=3), SMALL, 3, ""),
        (Measure(batch=1), SMALL, 1, ""),
    ],
)
def test_small_networks_are_timed_on_many_inputs_and_the_run_says_why(
    measure: Measure, dense: Cost, inputs: int, why: str
) -> None:
    found = conditions(measure, Prune(macs=0.5), dense=dense)
    assert (found.inputs, found.why, found.threads, found.asked) == (inputs, why, None, None)


def test_what_a_measure_leaves_open_is_as_the_budget_was() -> None:
    found = conditions(Measure(backend="onnxruntime"), ASKED)
    assert (found.threads, found.inputs, found.asked) == (2, 4, ASKED)


@pytest.mark.parametrize(
    "other", [Measure(), Measure(backend="onnxruntime", batch=1), Measure(backend="onnxruntime", threads=1)]
)
def test_a_timing_under_other_conditions_is_not_held_against_the_budget(other: Measure) -> None:
    assert conditions(other, ASKED).asked is None
