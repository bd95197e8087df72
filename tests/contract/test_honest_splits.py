"""A report says what the train split was used for, whatever ranked the units."""

from __future__ import annotations

import pytest

import espalier as es
from espalier.recipes import Finetune, Measure, Prune, Recipe
from espalier.report.splits import splits


@pytest.mark.parametrize(
    ("criterion", "said"),
    [
        ("snip", "It ranked the units by importance."),
        ("reversed:taylor", "It ranked the units by importance."),
        ("magnitude", "Nothing was fitted on it."),
    ],
)
def test_units_ranked_with_training_batches_are_owned_up_to(criterion: str, said: str) -> None:
    recipe = Recipe(steps=(Prune(macs=0.6, criterion=criterion, score_batches=1), Measure(latency=False)))
    done = es.compress(es.model("espalier:digits_cnn"), es.load_task("digits"), recipe)
    assert splits(done.run)[0].use == said


def test_a_stretch_of_one_step_trains() -> None:
    recipe = Recipe(steps=(Finetune(epochs=1, lr=0.1),), batch_size=2000)
    done = es.compress(es.model("espalier:digits_cnn"), es.load_task("digits", batch_size=2000), recipe)
    assert [epoch.lr > 0.01 for epoch in done.run.history] == [True]
