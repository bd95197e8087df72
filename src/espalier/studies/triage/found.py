"""What a study of blocks found: criticality, its analysis of variance, and how fast children learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from ...core.findings import Bar, Bars, Findings, Lines, Mark, Section, Strip, Table
from ...recipes.folders.folder import environment
from .. import files
from ..anova import Effect, two_way
from ..run import Outcome
from ..statistics import StatisticsError
from ..words import points, told
from .study import Triage

_NEAR = 0.01  # below the parent's accuracy: as good as reached
_IN_WORDS = {"layer": "only the new layer is trained", "network": "the whole network is trained"}

Rows = dict[tuple[str, str, str, str, int], dict[str, Any]]  # by block, init, scope, loss, seed
Parents = dict[int, dict[str, Any]]  # by seed


def findings(outcome: Outcome) -> Findings:
    """Return what a study of blocks found."""
    study = outcome.study
    assert isinstance(study, Triage)
    sections, numbers, leads = [], {}, []
    for subject in study.tasks:
        rows, parents = _rows(outcome, subject.name)
        if not rows:
            continue
        effects = {scope: _effects(rows, parents, study, scope) for scope in study.scopes}
        leads += [_said(subject.name, scope, found) for scope, found in effects.items() if found]
        sections.append(Section(title=subject.name, text=_TEXT, parts=tuple(_parts(study, rows, parents, effects))))
        numbers[subject.name] = {
            "parent": {str(seed): one[study.split] for seed, one in parents.items()},
            "children": [
                {**dict(zip(_KEYS, key, strict=True)), "criticality": critical(rows, parents, key, study.split), **row}
                for key, row in rows.items()
            ],
            "anova": {scope: [asdict(one) for one in found] for scope, found in effects.items()},
        }
    return Findings(
        name=study.name,
        kind="triage",
        lead=" ".join(leads),
        sections=tuple(sections),
        numbers=numbers,
        notes=(*dict.fromkeys(_notes(outcome)), *told(outcome)),
        study=files.to_toml(study),
        environment={
            **environment(study.seeds[0]),
            "code": ", ".join(sorted({k.code for k in outcome.results.values()})),
        },
    )


_KEYS = ("block", "init", "scope", "loss", "seed")
_TEXT = (
    "Criticality is the parent's accuracy less the child's, in points, for each block that one layer replaces. The "
    "paper's first version found that it tells layers apart; its second, that after training the whole network it does "
    "not: the analysis of variance below asks both."
)


def critical(rows: Rows, parents: Parents, key: tuple[str, str, str, str, int], split: str) -> float:
    """Return the parent's accuracy less the child's."""
    return parents[key[4]][split] - rows[key][split]


def epochs_to(curve: list[float], target: float) -> int | None:
    """Return after how many epochs a curve is first at the target; None where it never is."""
    return next((number for number, value in enumerate(curve, 1) if value >= target), None)


def _rows(outcome: Outcome, task: str) -> tuple[Rows, Parents]:
    split = outcome.study.split
    parents: Any = {
        job.cell["seed"]: k.outcome for job, k in outcome.of("dense") if k.outcome and job.cell["task"] == task
    }
    rows: Any = {
        tuple(job.cell[name] for name in _KEYS): {
            name: known.outcome[name] for name in (split, "curve", "macs_ratio", "params_ratio")
        }
        for job, known in outcome.of("triage")
        if known.outcome and job.cell["task"] == task and job.cell["seed"] in parents
    }
    return rows, parents


def _blocks(rows: Rows) -> list[str]:
    return list(dict.fromkeys(key[0] for key in rows))


def _effects(rows: Rows, parents: Parents, study: Triage, scope: str) -> tuple[Effect, ...]:
    """Return the analysis of variance of criticality by block and scheme; none where runs are missing."""
    schemes = list(product(study.inits, study.losses))
    try:
        cells = [
            [[critical(rows, parents, (b, i, scope, o, s), study.split) for s in study.seeds] for i, o in schemes]
            for b in _blocks(rows)
        ]
        return two_way(np.array(cells), ("block", "scheme"))
    except (KeyError, StatisticsError):
        return ()


def _said(task: str, scope: str, effects: tuple[Effect, ...]) -> str:
    block = effects[0]
    matters = "matters" if block.p < 0.05 else "does not show"
    return f"{task}, where {_IN_WORDS[scope]}: which block is replaced {matters} (p = {block.p:.2g})."


def _parts(study: Triage, rows: Rows, parents: Parents, effects: dict[str, tuple[Effect, ...]]) -> Iterator[Any]:
    for scope in study.scopes:
        yield _bars(study, rows, parents, scope)
    yield _strip(study, rows)
    yield from (_curves(study, rows, scope) for scope in study.scopes)
    lines = [
        (
            f"{one.name}, {_IN_WORDS[scope]}",
            str(one.freedom),
            f"{one.ratio:.2f}",
            f"{one.p:.2g}",
            f"{100 * one.share:.0f}",
        )
        for scope, found in effects.items()
        for one in found
    ]
    if lines:
        yield Table(
            title="Analysis of variance of criticality",
            head=("effect", "degrees of freedom", "F", "p", "% of all squares"),
            rows=tuple(lines),
            note="A scheme is an initialisation with a loss; seeds are the repetitions.",
        )
    yield _savings(study, rows, parents)


def _bars(study: Triage, rows: Rows, parents: Parents, scope: str) -> Bars:
    bars = []
    for block in _blocks(rows):
        values = [
            100 * critical(rows, parents, key, study.split) for key in rows if key[0] == block and key[2] == scope
        ]
        if values:
            centre, half = float(np.mean(values)), _half(values)
            around = f"95 % interval {centre - half:.2f} to {centre + half:.2f}, {len(values)} children"
            title = f"{block}: {centre:.2f} points, {around}"
            bars.append(Bar(label=block, value=centre, low=centre - half, high=centre + half, title=title))
    return Bars(title=f"Criticality of each block, points: {_IN_WORDS[scope]}", rows=tuple(bars))


def _half(values: list[float]) -> float:
    """Return half of Student's 95 % interval of a mean."""
    return float(stats.sem(values) * stats.t.isf(0.025, len(values) - 1)) if len(values) > 1 else 0.0


def _strip(study: Triage, rows: Rows) -> Strip:
    series = tuple(f"{init}, {loss}" for init, loss in product(study.inits, study.losses))
    made = tuple(
        (
            f"{block}, {scope}",
            tuple(
                Mark(
                    value=100 * row[study.split],
                    series=series.index(f"{key[1]}, {key[3]}"),
                    title=f"{' '.join(map(str, key))}: {points(row[study.split])}",
                )
                for key, row in rows.items()
                if key[0] == block and key[2] == scope
            ),
        )
        for block, scope in product(_blocks(rows), study.scopes)
    )
    return Strip(title=f"Every child: {study.split} accuracy, points", rows=made, series=series)


def _curves(study: Triage, rows: Rows, scope: str) -> Lines:
    """Return the mean accuracy after each epoch, a line a scheme."""
    lines = []
    for init, loss in product(study.inits, study.losses):
        curves = [row["curve"] for key, row in rows.items() if key[1:4] == (init, scope, loss)]
        if curves and curves[0]:
            middle = np.mean(curves, axis=0)
            lines.append((f"{init}, {loss}", tuple((i + 1.0, 100 * float(v)) for i, v in enumerate(middle))))
    return Lines(
        title=f"How fast they learn, validation accuracy in points: {_IN_WORDS[scope]}",
        x_label="epoch",
        y_label="accuracy",
        lines=tuple(lines),
        note="The mean over blocks and seeds.",
    )


def _savings(study: Triage, rows: Rows, parents: Parents) -> Table:
    lines = []
    for block in _blocks(rows):
        own = {key: row for key, row in rows.items() if key[0] == block}
        first = next(iter(own.values()))
        goals = {seed: one["validation"] for seed, one in parents.items() if one["validation"] is not None}
        reached = [epochs_to(row["curve"], goals[key[4]] - _NEAR) for key, row in own.items() if key[4] in goals]
        done = [one for one in reached if one is not None]
        lines.append(
            (
                block,
                f"{100 * (1 - first['macs_ratio']):.1f}",
                f"{100 * (1 - first['params_ratio']):.1f}",
                f"{len(done)} of {len(reached)}",
                f"{np.median(done):g}" if done else "\N{EN DASH}",
            )
        )
    return Table(
        title="What each block costs",
        head=(
            "block",
            "MACs saved, %",
            "parameters saved, %",
            "children within 1 point of the parent",
            "epochs to there",
        ),
        rows=tuple(lines),
        note="On validation.",
    )


def _notes(outcome: Outcome) -> Iterator[str]:
    for job, known in outcome.of("triage"):
        if job.cell["init"] == "mean" and known.outcome:
            yield from (f"{job.cell['task']}: {note}" for note in known.outcome["notes"])
