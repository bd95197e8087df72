"""Which data decided what: the part of a report that a sceptical reader looks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.run import Run
from .numbers import show_time


@dataclass(frozen=True)
class Split:
    """One split of the data: its name, its size, what it was used for."""

    name: str
    size: str
    use: str


def splits(run: Run) -> list[Split]:
    """Return the three splits, as far as the run knows them."""
    uses = {"train": _train(run), "validation": _validation(run), "test": _test(run)}
    sizes = {name: f"{count:,} {'batch' if count == 1 else 'batches'}" for name, count in run.splits.items()}
    if run.readings:
        sizes["test"] = f"{run.readings[-1].examples:,} examples"
    return [Split(name.capitalize(), sizes[name], use) for name, use in uses.items() if name in sizes]


def _train(run: Run) -> str:
    given = (
        ("trained the weights", bool(run.history)),
        ("ranked the units by importance", run.ranked_on_train),
        ("repaired the network after cuts", re.search(r'kind = "recover"|^recover = \[\s*"', run.recipe, re.M)),
    )
    uses = [words for words, done in given if done]
    return (
        f"It {', '.join(uses[:-1])}{' and ' if len(uses) > 1 else ''}{uses[-1]}."
        if uses
        else "Nothing was fitted on it."
    )


def _validation(run: Run) -> str:
    undone = sum(not point.accepted for point in run.path)
    tried = sum(point.kind == "trained" for point in run.path)
    watched = "Every number on the way that is shown here was measured on it."
    if "max_drop" in run.recipe and _searched(run):
        return f"Decided which cuts were kept: {tried} tried, {undone} undone. {watched}"
    return f"{watched} Nothing was chosen by it: the last epoch counts, not the best."


def _searched(run: Run) -> bool:
    return any(line.strip().startswith("max_drop =") for line in run.recipe.splitlines())


def _test(run: Run) -> str:
    if not run.readings:
        return "Not read yet: it is read once, at the end."
    last = run.readings[-1]
    at = f" at {show_time(last.at)}" if last.at else ""
    both = f", by {' and '.join(map(str, last.metrics))} networks in the same pass" if last.metrics else ""
    times = "once" if len(run.readings) == 1 else f"{len(run.readings)} times"
    return (
        f"Decided nothing. Read {times}, at the end{at}{both}. Fingerprint of its targets: {last.targets_sha256[:12]}."
    )
