"""Results of arms as arrays (heuristics, seeds), one for each task and ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .run import Outcome
from .statistics import Cells
from .study import RANDOM, REVERSED, Heuristics


@dataclass(frozen=True, eq=False)
class Setting:
    """One task at one ratio.

    Attributes:
        task: its name.
        ratio: of the budget.
        heuristics: the rows: those of which every arm has every seed.
        arms: (heuristics, seeds) of the metric, by arm, the baseline first.
        after_cut: the same on validation right after the cut; NaN where an arm trains before it cuts and after.
        lost: heuristics that are left out, since some of their runs failed.
        macs: smallest and largest ratio of MACs over all runs.
    """

    task: str
    ratio: float
    heuristics: tuple[str, ...]
    arms: dict[str, Cells]
    after_cut: dict[str, Cells]
    lost: tuple[str, ...]
    macs: tuple[float, float]

    @property
    def title(self) -> str:
        """What it is called in a report."""
        return f"{self.task} at {self.ratio:g}"

    def chosen(self, *, controls: bool) -> list[int]:
        """Return the rows of all heuristics, or of those that are no controls."""
        return [i for i, name in enumerate(self.heuristics) if controls or not is_control(name)]


def is_control(heuristic: str) -> bool:
    """Say whether a heuristic is there to be compared with."""
    return heuristic == RANDOM or heuristic.startswith(REVERSED)


def settings(outcome: Outcome) -> list[Setting]:
    """Return the results of each task at each ratio."""
    study = outcome.study
    assert isinstance(study, Heuristics)
    found: dict[tuple, dict] = {}
    for job, known in outcome.of("arm"):
        cell = job.cell
        place = found.setdefault((cell["task"], cell["ratio"]), {})
        place[cell["arm"], cell["heuristic"], cell["seed"]] = known.outcome
    return [
        _setting(study, task.name, ratio, found.get((task.name, ratio), {}))
        for task in study.tasks
        for ratio in study.ratios
    ]


def _setting(study: Heuristics, task: str, ratio: float, place: dict) -> Setting:
    arms = [arm.name for arm in study.arms]
    whole = [h for h in study.heuristics if all((arm, h, seed) in place for arm in arms for seed in study.seeds)]
    costs = [one["macs_ratio"] for one in place.values() if one["macs_ratio"] is not None]

    def cells(arm: str, measure: str) -> Cells:
        return _array([[place[arm, h, seed][measure] for seed in study.seeds] for h in whole])

    return Setting(
        task,
        ratio,
        tuple(whole),
        {arm: cells(arm, study.split) for arm in arms},
        {arm: cells(arm, "after_cut") for arm in arms},
        tuple(h for h in study.heuristics if h not in whole),
        (min(costs, default=np.nan), max(costs, default=np.nan)),
    )


def _array(rows: Sequence[Sequence[float | None]]) -> Cells:
    return np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=np.float64)
