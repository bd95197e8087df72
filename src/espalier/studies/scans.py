"""What scans of sensitivity found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..core.findings import Bar, Bars, Findings, Lines, Section
from ..recipes.folders.folder import environment
from . import files
from .run import Outcome
from .study import Sensitivity
from .words import told

_MOST = 12  # curves that a picture can hold: those of the most sensitive groups


def findings(outcome: Outcome) -> Findings:
    """Return what a scan found."""
    study = outcome.study
    assert isinstance(study, Sensitivity)
    sections, numbers, leads = [], {}, []
    for subject in study.tasks:
        for criterion in study.criteria:
            scans = [known.outcome for _, known in _of(outcome, subject.name, criterion) if known.outcome]
            if not scans:
                continue
            losses = _losses(scans)
            title = f"{subject.name}, {criterion}"
            sections.append(Section(title=title, parts=tuple(_parts(study, losses))))
            numbers[title] = {"dense": [one["dense"] for one in scans], "groups": [one["groups"] for one in scans]}
            worst = max(losses, key=lambda name: losses[name][max(losses[name])].mean(), default="")
            leads.append(f"{title}: {worst} is the group that is missed most." if worst else "")
    notes = [f"{job}: {note}" for job, known in outcome.of("sensitivity") for note in (known.outcome or {})["notes"]]
    return Findings(
        name=study.name,
        kind="sensitivity",
        lead=" ".join(filter(None, leads)),
        sections=tuple(sections),
        numbers=numbers,
        notes=(*dict.fromkeys(notes), *told(outcome)),
        study=files.to_toml(study),
        environment={
            **environment(study.seeds[0]),
            "code": ", ".join(sorted({k.code for k in outcome.results.values()})),
        },
    )


Losses = dict[str, dict[float, Any]]  # {group: {ratio: points lost, a seed each}}


def _of(outcome: Outcome, task: str, criterion: str) -> Iterator[Any]:
    for job, known in outcome.of("sensitivity"):
        if job.cell["task"] == task and job.cell["criterion"] == criterion:
            yield job, known


def _losses(scans: list[dict[str, Any]]) -> Losses:
    """Return what each group's cut loses against the dense network, in points."""
    found: dict[str, dict[float, list[float]]] = {}
    for scan in scans:
        for group, rows in scan["groups"].items():
            for row in rows:
                lost = 100 * (scan["dense"] - row["accuracy"])
                found.setdefault(group, {}).setdefault(row["ratio"], []).append(lost)
    return {group: {ratio: np.array(values) for ratio, values in rows.items()} for group, rows in found.items()}


def _parts(study: Sensitivity, losses: Losses) -> Iterator[Any]:
    for ratio in study.ratios:
        rows = tuple(_bar(group, found[ratio]) for group, found in losses.items() if ratio in found)
        yield Bars(title=f"Points lost where a group loses {100 * ratio:g} % of its units, and no other", rows=rows)
    most = sorted(losses, key=lambda group: -max(values.mean() for values in losses[group].values()))[:_MOST]
    lines = tuple(
        (
            group,
            ((0.0, 0.0), *((100 * ratio, -float(values.mean())) for ratio, values in sorted(losses[group].items()))),
        )
        for group in most
    )
    note = f"The {_MOST} groups that are missed most." if len(losses) > _MOST else ""
    yield Lines(
        title="Points against the dense network", x_label="% of units cut", y_label="points", lines=lines, note=note
    )


def _bar(group: str, values: Any) -> Bar:
    low, high, centre = float(values.min()), float(values.max()), float(values.mean())
    return Bar(
        label=group,
        value=centre,
        low=low,
        high=high,
        title=f"{group}: {centre:.2f} points, {low:.2f} to {high:.2f} over {len(values)} seeds",
    )
