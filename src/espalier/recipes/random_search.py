"""Random search over a method's hyperparameters, judged on the validation split; the test split is never read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..methods import MethodError, registry
from .recipe import Recipe
from .run import run_recipe
from .steps import Prune

if TYPE_CHECKING:
    from ..tasks import Task


@dataclass(frozen=True)
class Tried:
    """One draw: the hyperparameters, and the metric on validation that their run came to, in [0, 1]."""

    options: Mapping[str, Any]
    score: float


def random_search(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    space: Mapping[str, Sequence[Any]] | None = None,
    trials: int = 8,
    seed: int = 0,
    on_trial: Callable[[Tried], None] = lambda tried: None,
) -> list[Tried]:
    """Run a recipe with hyperparameters of its method drawn at random; return all that was tried, the best first.

    Every draw sees the same batches from the same seed, and is judged at the end of the recipe on validation. Choose by
    it, and run the recipe once more with the winner: that run reads the test split.

    Source: Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012.

    Args:
        model: that the recipe begins with; it is untouched.
        task: its test split is not read.
        recipe: with one prune step that names a method.
        space: ``{hyperparameter: values}``, each drawn uniformly; the method's own ``SEARCH`` when None.
        trials: how many distinct draws at most.
        seed: of the draws.
        on_trial: called after each.

    Raises:
        MethodError: the recipe has no method, or the space is of another one or empty.
    """
    steps = [step for step in recipe.steps if isinstance(step, Prune) and step.method is not None]
    if len(steps) != 1 or steps[0].method is None:
        raise MethodError(f"random search is over one method's hyperparameters; the recipe has {len(steps)} methods")
    step, name = steps[0], steps[0].method
    space = getattr(registry.kind(name), "SEARCH", {}) if space is None else space
    if not space or not all(space.values()):
        raise MethodError(f"nothing to search: give space={{hyperparameter: values}} for {name}")
    blind = replace(task, test=_Again(task))
    tried = []
    for options in _draws(space, trials, seed):
        given = {**step.options, **options}
        registry.made(name, given)  # a mistake shows before the first epoch
        changed = tuple(one.model_copy(update={"options": given}) if one is step else one for one in recipe.steps)
        result = run_recipe(copy.deepcopy(model), blind, recipe.model_copy(update={"steps": changed}))
        tried.append(Tried(options, result.run.after.accuracy or 0.0))
        on_trial(tried[-1])
    return sorted(tried, key=lambda one: -one.score)


def _draws(space: Mapping[str, Sequence[Any]], trials: int, seed: int) -> list[dict[str, Any]]:
    """Return distinct draws; fewer than asked for where the space is small."""
    generator = torch.Generator().manual_seed(seed)
    found: list[dict[str, Any]] = []
    for _ in range(20 * trials):
        draw = {
            name: values[int(torch.randint(len(values), (), generator=generator))] for name, values in space.items()
        }
        if draw not in found:
            found.append(draw)
        if len(found) == trials:
            break
    return found


@dataclass(eq=False)
class _Again:
    """The validation split where a run reads its test split."""

    task: Task
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.task.validation)

    def __iter__(self) -> Any:
        return iter(self.task.validation)
