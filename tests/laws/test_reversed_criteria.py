"""Anti-heuristics by name: "reversed:NAME" keeps what NAME cuts, in recipes too."""

from __future__ import annotations

import pytest
import torch

import espalier as es
from espalier import criteria
from espalier.recipes import Measure, Prune, Recipe
from espalier.recipes.files import RecipeError, checked
from espalier.tasks import Task, load_task


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=256)


def kept(name: str, digits: Task) -> dict[str, set[int]]:
    """Return which units a recipe keeps when it cuts every group alike."""
    torch.manual_seed(0)
    prune = Prune(macs=0.5, criterion=name, strategy="uniform", score_batches=1)
    run = es.compress(es.model("espalier:digits_cnn"), digits, Recipe(steps=(prune, Measure(latency=False)))).run
    return {width.group: {width.after} for width in run.widths}


@pytest.mark.parametrize("name", ["magnitude", "random", "taylor"])
def test_a_reversed_name_gives_the_scores_upside_down(name: str, digits: Task) -> None:
    torch.manual_seed(0)
    model = es.model("espalier:digits_cnn").eval()
    graph = es.trace(model, digits.example())
    options = {"batches": [next(iter(digits.validation))], "loss": digits.loss} if criteria.reads_data(name) else {}
    plain, turned = (criteria.named(one)(model, graph, **options) for one in (name, f"reversed:{name}"))
    assert criteria.reads_data(f"reversed:{name}") == criteria.reads_data(name)
    assert all(torch.equal(plain[group], -turned[group]) for group in plain)


@pytest.mark.parametrize("name", ["reversed:taylor", "reversed:random", "reversed:magnitude"])
def test_a_recipe_takes_a_reversed_criterion(name: str, digits: Task) -> None:
    assert kept(name, digits) == kept(name.removeprefix("reversed:"), digits)  # as many units; others of them


def test_an_unknown_name_behind_the_prefix_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="reversed:magnitud.*did you mean 'magnitude'"):
        checked({"steps": [{"kind": "prune", "macs": 0.5, "criterion": "reversed:magnitud"}]})
    with pytest.raises(es.EspalierError, match="reversed:"):
        criteria.named("reversed:reversed:magnitude")
