"""Steps and settings made in Python fail as those in files do: one error, every mistake, the nearest key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import espalier as es
from espalier.core import EspalierError
from espalier.recipes import Prune, Recipe, RecipeError, Settings


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Prune(mac=0.5, rouns=2), "Prune: unknown key 'mac'; did you mean 'macs'?\nPrune: unknown key 'rouns'"),  # type: ignore[call-arg]
        (lambda: Settings(macs=0.5, epoch=3), "Settings: unknown key 'epoch'; did you mean 'epochs'?"),  # type: ignore[call-arg]
        (lambda: Recipe(steps=(Prune(macs=0.5),), sed=1), "Recipe: unknown key 'sed'; did you mean 'seed'?"),  # type: ignore[call-arg]
    ],
)
def test_every_mistake_has_its_nearest_key(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(RecipeError) as met:
        make()
    assert str(met.value).startswith(said) and isinstance(met.value, EspalierError)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, task: es.compress(model, task, "half"), "a Recipe or Settings, not str"),  # type: ignore[arg-type]
        (lambda model, task: es.compress(model, None, Settings(macs=0.5)), "takes a Task"),  # type: ignore[arg-type]
        (lambda model, task: es.compress(model, task, Settings(macs=0.5), folder=5), "takes a path"),  # type: ignore[arg-type]
        (lambda model, task: es.resume(5), "resume takes a path"),  # type: ignore[arg-type]
        (lambda model, task: es.load_task("digits", batch_size=0), "at least 1, not 0"),
        (lambda model, task: es.compare(model, model, task.example(), rounds=0), "at least one round, not 0"),
    ],
)
def test_arguments_of_another_kind_are_named(call: Callable[..., Any], said: str) -> None:
    with pytest.raises(EspalierError, match=said):
        call(es.model("espalier:digits_cnn"), es.load_task("digits"))
