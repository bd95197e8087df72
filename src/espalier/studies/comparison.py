"""What a study of heuristics found, as sections of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..core.findings import Findings, Section, Table
from ..recipes.folders.folder import environment
from . import files
from .cells import Setting, is_control, settings
from .pictures import heats, spread, strip
from .run import Outcome
from .statistics import Component, Interval, StatisticsError, component, difference, mean, power, reduction
from .study import Heuristics
from .words import interval, points, told

_SAME_COST = 0.02  # of MACs: arms whose networks differ by more are not compared fairly
_REDUCED = 2.5  # ratio of variances that the power is told for: a reduction by 60 %


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, in one setting, over some of the heuristics."""

    setting: str
    arm: str
    controls: bool
    heuristics: int
    base: Component
    own: Component
    reduction: Interval
    base_mean: Interval
    own_mean: Interval
    difference: Interval


def findings(outcome: Outcome) -> Findings:
    """Return what a study of heuristics found."""
    study = outcome.study
    assert isinstance(study, Heuristics)
    places = settings(outcome)
    compared = [one for place in places for one in comparisons(place)]
    numbers: dict[str, Any] = {
        "comparisons": [asdict(one) for one in compared],
        "cells": [_cells(place) for place in places],
        "scratch": [
            {**job.cell, study.split: known.outcome[study.split]}
            for job, known in outcome.of("scratch")
            if known.outcome
        ],
        "dense": [
            {**job.cell, study.split: known.outcome[study.split]} for job, known in outcome.of("dense") if known.outcome
        ],
        "kendall": {task: heat.values for task, heat in heats(outcome)},
        "power": power(_REDUCED, len(study.heuristics)) if len(study.heuristics) > 1 else None,
    }
    return Findings(
        name=study.name,
        kind="heuristics",
        lead=_lead(compared, study),
        sections=tuple(_sections(outcome, places, compared)),
        numbers=numbers,
        notes=(*_notes(places), *_falls(compared), *told(outcome)),
        study=files.to_toml(study),
        environment={
            **environment(study.seeds[0]),
            "code": ", ".join(sorted({k.code for k in outcome.results.values()})),
        },
    )


def comparisons(place: Setting) -> Iterator[Comparison]:
    """Yield each arm against the first, with the controls among the heuristics and without them."""
    (first, base), *others = place.arms.items()
    for name, cells in others or [(first, base)]:
        for controls in (True, False):
            rows = place.chosen(controls=controls)
            try:
                yield Comparison(
                    place.title,
                    name,
                    controls,
                    len(rows),
                    component(base[rows]),
                    component(cells[rows]),
                    reduction(base[rows], cells[rows]),
                    mean(base[rows]),
                    mean(cells[rows]),
                    difference(base[rows], cells[rows]),
                )
            except StatisticsError:
                continue


def _lead(compared: list[Comparison], study: Heuristics) -> str:
    whole = [one for one in compared if one.controls]
    if not whole:
        return "Too few runs for a variance between heuristics: it needs two heuristics and two seeds at least."
    one = whole[0]
    words = (
        f"Choosing another heuristic by chance moves the {study.split} accuracy of {one.setting} by "
        f"{points(one.base.deviation)} points (standard deviation) in {study.arms[0].name}"
    )
    if len(study.arms) == 1:
        return words + "."
    gain = f"is {interval(one.difference)} points better on average"
    if np.isfinite(one.reduction.low):
        return f"{words}; {one.arm} takes {interval(one.reduction, 0)} % of that variance away and {gain}."
    return f"{words}, too little to tell what {one.arm} takes away of it; {one.arm} {gain}."


def _sections(outcome: Outcome, places: list[Setting], compared: list[Comparison]) -> Iterator[Section]:
    study = outcome.study
    assert isinstance(study, Heuristics)
    yield Section(
        title="Does the heuristic matter?",
        text="The variance component of the heuristic is what is left of the spread between heuristics when the spread "
        "between seeds is taken out. Its reduction has a bootstrap interval over heuristics; means and differences "
        "have Student's. Every estimate is there twice: with random and anti-heuristics among them, and without.",
        parts=tuple(_tables(study, compared)),
    )
    yield Section(
        title="Every run",
        text="A mark is a run; a row is a heuristic, the best of the baseline on top. Controls are the last rows: the "
        "small network from scratch, with as many epochs (E) or as many multiply-accumulates (B).",
        parts=tuple(strip(outcome, place) for place in places if place.heuristics),
    )
    taus = tuple(heat for _, heat in heats(outcome))
    if taus:
        yield Section(
            title="Are they different heuristics at all?",
            text="Kendall's tau between the rankings of the same units of the dense network: 1 is the same order, -1 "
            "the opposite. Heuristics that rank alike make the variance between them small for no merit of an arm.",
            parts=taus,
        )
    if len(places) > 1 or any(
        np.isfinite(cells).all() and cells.size for p in places for cells in p.after_cut.values()
    ):
        yield Section(title="Before and after training", parts=(spread(study, places),))


def _tables(study: Heuristics, compared: list[Comparison]) -> Iterator[Table]:
    base = study.arms[0].name
    if len(study.arms) > 1:
        yield Table(
            title="Variance component of the heuristic, in squared points",
            head=("setting, arm, heuristics", base, "arm", "reduction, %", "p of no influence", "power"),
            rows=tuple(
                (
                    _row(one),
                    f"{1e4 * one.base.value:.3f}",
                    f"{1e4 * one.own.value:.3f}",
                    interval(one.reduction, 0),
                    f"{one.base.p:.2g} / {one.own.p:.2g}",
                    f"{power(_REDUCED, one.heuristics):.2f}",
                )
                for one in compared
            ),
            note="Negative estimates count as 0. Power: of an F test at 5 %, if 60 % were taken away.",
        )
    yield Table(
        title=f"Mean {study.split} accuracy, in points",
        head=("setting, arm, heuristics", base, "arm", "difference"),
        rows=tuple(
            (_row(one), interval(one.base_mean), interval(one.own_mean), interval(one.difference)) for one in compared
        ),
    )


def _row(one: Comparison) -> str:
    which = "with controls" if one.controls else "without"
    return f"{one.setting}, {one.arm}, {one.heuristics} {which}"


def _falls(compared: list[Comparison]) -> Iterator[str]:
    """Yield a warning for every arm that is less spread because it is worse."""
    for one in compared:
        if one.controls and one.difference.high < 0 and one.own.value < one.base.value:
            yield (
                f"{one.setting}: {one.arm} is worse on average, and where every heuristic does badly they differ "
                "little: its smaller variance is no merit"
            )


def _cells(place: Setting) -> dict[str, Any]:
    arms = {arm: cells.tolist() for arm, cells in place.arms.items()}
    after = {arm: cells.tolist() for arm, cells in place.after_cut.items()}
    return {"task": place.task, "ratio": place.ratio, "heuristics": place.heuristics, "arms": arms, "after_cut": after}


def _notes(places: list[Setting]) -> Iterator[str]:
    for place in places:
        if place.lost:
            yield f"{place.title}: left out, as some of their runs failed: {', '.join(place.lost)}"
        low, high = place.macs
        if high - low > _SAME_COST * high:
            yield (
                f"{place.title}: the networks cost {100 * low:.1f} to {100 * high:.1f} % of the MACs, so heuristics "
                'are not compared at one cost; strategy = "uniform" gives all the same widths'
            )
        if place.heuristics and not any(map(is_control, place.heuristics)):
            yield f"{place.title}: no control came through"
