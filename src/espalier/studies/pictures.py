"""Pictures of a study of heuristics: every run, and how alike the rankings are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.findings import Heat, Mark, Strip, Table
from .cells import Setting
from .rankings import kendall
from .run import Outcome
from .statistics import StatisticsError, component
from .study import SCRATCH, Heuristics
from .words import MEASURES, points


def strip(outcome: Outcome, place: Setting) -> Strip:
    """Return every run of a setting, a row a heuristic, and the controls below."""
    study = outcome.study
    assert isinstance(study, Heuristics)
    base = next(iter(place.arms.values()))
    order = sorted(range(len(place.heuristics)), key=lambda row: -base[row].mean())
    rows = [
        (
            place.heuristics[row],
            tuple(
                Mark(
                    value=100 * value,
                    series=number,
                    title=f"{arm}, {place.heuristics[row]}, seed {seed}: {points(value)}",
                )
                for number, (arm, cells) in enumerate(place.arms.items())
                for seed, value in zip(study.seeds, cells[row], strict=True)
            ),
        )
        for row in order
    ]
    for name in ("dense", *SCRATCH):
        found = [
            (job.cell["seed"], known.outcome[study.split])
            for job, known in outcome.of("dense" if name == "dense" else "scratch")
            if known.outcome
            and job.cell["task"] == place.task
            and job.cell.get("ratio", place.ratio) == place.ratio
            and job.cell.get("arm", name) == name
        ]
        marks = tuple(
            Mark(value=100 * v, series=len(place.arms), title=f"{name}, seed {seed}: {points(v)}") for seed, v in found
        )
        rows += [(name, marks)] if marks else []
    title = f"{study.split.capitalize()} accuracy, points: {place.title} of the {MEASURES[study.measure]}"
    return Strip(title=title, rows=tuple(rows), series=(*place.arms, "control"))


def heats(outcome: Outcome) -> Iterator[tuple[str, Heat]]:
    """Yield Kendall's tau between all heuristics, a task each."""
    study = outcome.study
    assert isinstance(study, Heuristics)
    for subject in study.tasks:
        seeds: dict[Any, dict[str, Any]] = {}
        for job, known in outcome.of("scores"):
            if job.cell["task"] == subject.name and known.outcome:
                seeds.setdefault(job.cell["seed"], {})[str(job.cell["heuristic"])] = known.outcome["scores"]
        names = [name for name in study.heuristics if all(name in one for one in seeds.values())] if seeds else []
        if len(names) > 1:
            taus = np.mean([kendall([one[name] for name in names]) for one in seeds.values()], axis=0)
            yield (
                subject.name,
                Heat(
                    title=f"Kendall's tau, {subject.name}, mean of {len(seeds)} seeds",
                    labels=tuple(names),
                    values=tuple(tuple(None if np.isnan(x) else round(float(x), 4) for x in row) for row in taus),
                ),
            )


def spread(study: Heuristics, places: list[Setting]) -> Table:
    """Return the spread between heuristics before training and after it, by setting and arm."""
    rows = []
    for place in places:
        for arm, cells in place.arms.items():
            values = [_deviation(place.after_cut[arm]), _deviation(cells)]
            rows.append((f"{place.title}, {arm}", *(points(value) for value in values)))
    return Table(
        title="Standard deviation between heuristics, in points",
        head=("setting, arm", "after the cut (validation)", f"at the end ({study.split})"),
        rows=tuple(rows),
        note="The square root of the variance component.",
    )


def _deviation(cells: Any) -> float:
    try:
        return component(cells).deviation
    except StatisticsError:
        return np.nan
