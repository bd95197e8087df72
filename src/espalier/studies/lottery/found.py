"""What a study of lottery tickets found: accuracy against the weights that are left, and how fast each arm learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.findings import Findings, Lines, Section, Table
from ...recipes.folders.folder import environment
from .. import files
from ..run import Outcome
from ..statistics import student
from ..words import interval, points, told
from .study import ARMS, FRESH, RANDOM_MASK, TICKET, Lottery

_NEAR = 0.005  # of accuracy below the dense network: as good as reached
_TEXT = (
    "Each round hides an equal share of the weights that are left and trains again. A ticket begins where the dense "
    "network began; re-initialised, it has the ticket's mask and a fresh beginning; a random mask has the ticket's "
    "beginning; fine-tuned, the trained weights go on at a lower rate. All train for as many epochs, with as many "
    "weights."
)

Values = NDArray[np.float64]
Rows = dict[tuple[str, int], dict[int, dict[str, Any]]]  # {(arm, round): {seed: outcome}}


def findings(outcome: Outcome) -> Findings:
    """Return what a study of lottery tickets found."""
    study = outcome.study
    assert isinstance(study, Lottery)
    sections, numbers, leads = [], {}, []
    for subject in study.tasks:
        rows, dense = _rows(outcome, subject.name)
        if not rows or not dense:
            continue
        leads.append(_said(study, subject.name, rows, dense))
        sections.append(Section(title=subject.name, text=_TEXT, parts=tuple(_parts(study, rows, dense))))
        numbers[subject.name] = {
            "dense": {str(seed): one[study.split] for seed, one in dense.items()},
            "runs": [
                {"arm": arm, "round": number, "seed": seed, **_kept(one, study.split)}
                for (arm, number), seeds in rows.items()
                for seed, one in seeds.items()
            ],
        }
    return Findings(
        name=study.name,
        kind="lottery",
        lead=" ".join(leads),
        sections=tuple(sections),
        numbers=numbers,
        notes=tuple(told(outcome)),
        study=files.to_toml(study),
        environment={
            **environment(study.seeds[0]),
            "code": ", ".join(sorted({k.code for k in outcome.results.values()})),
        },
    )


def _kept(one: dict[str, Any], split: str) -> dict[str, Any]:
    return {name: one[name] for name in (split, "density", "layers", "curve")}


def _rows(outcome: Outcome, task: str) -> tuple[Rows, dict[int, dict[str, Any]]]:
    rows: Rows = {}
    for job, known in outcome.of("lottery"):
        if known.outcome and job.cell["task"] == task:
            place = str(job.cell["arm"]), int(job.cell["round"])
            rows.setdefault(place, {})[int(job.cell["seed"])] = known.outcome
    dense = {
        int(job.cell["seed"]): known.outcome
        for job, known in outcome.of("dense")
        if known.outcome and job.cell["task"] == task
    }
    return rows, dense


def _values(seeds: dict[int, dict[str, Any]], split: str) -> Values:
    return np.array([one[split] for _, one in sorted(seeds.items())])


def _shares(rows: Rows) -> dict[int, float]:
    """Return which share of the weights is left in each round; arms and seeds have the same but for rounding."""
    rounds = sorted({number for _, number in rows})
    every = {n: [one["density"] for (_, k), seeds in rows.items() if k == n for one in seeds.values()] for n in rounds}
    return {number: float(np.mean(found)) for number, found in every.items()}


def reach(study: Lottery, rows: Rows, dense: dict[int, dict[str, Any]], arm: str) -> float | None:
    """Return the smallest share of weights down to which an arm's mean stays within half a point of the dense one's."""
    enough, reached = float(_values(dense, study.split).mean()) - _NEAR, None
    for number, share in _shares(rows).items():
        seeds = rows.get((arm, number))
        if not seeds or float(_values(seeds, study.split).mean()) < enough:
            break
        reached = share
    return reached


def _said(study: Lottery, task: str, rows: Rows, dense: dict[int, dict[str, Any]]) -> str:
    words = []
    for arm in ARMS:
        found = reach(study, rows, dense, arm)
        words.append(f"{arm} {'not once' if found is None else f'down to {100 * found:.3g} % of the weights'}")
    count = len(dense)
    return (
        f"{task}, within half a point of the dense network: {', '.join(words)} (means of {count} "
        f"seed{'s' if count != 1 else ''})."
    )


def _parts(study: Lottery, rows: Rows, dense: dict[int, dict[str, Any]]) -> Iterator[Any]:
    yield _picture(study, rows, dense)
    yield _table(study, rows, dense)
    yield _speed(rows, dense)


def _picture(study: Lottery, rows: Rows, dense: dict[int, dict[str, Any]]) -> Lines:
    """Return accuracy against the weights that are left, a line an arm, with the range over seeds."""
    shares = _shares(rows)
    lines, spreads = [], []
    for arm in ARMS:
        own = {100 * shares[n]: 100 * _values(rows[arm, n], study.split) for n in shares if (arm, n) in rows}
        own = {100.0: 100 * _values(dense, study.split), **own}
        lines.append((arm, tuple((share, float(values.mean())) for share, values in own.items())))
        spreads.append(tuple((share, float(values.min()), float(values.max())) for share, values in own.items()))
    return Lines(
        title=f"{study.split.capitalize()} accuracy, points, against the weights that are left, %",
        x_label="% of the weights that are left, on a logarithmic scale",
        y_label="points",
        lines=tuple(lines),
        spreads=tuple(spreads),
        x_log=True,
        note="Means over seeds; bars from the lowest seed to the highest. All lines begin with the dense network.",
    )


def _table(study: Lottery, rows: Rows, dense: dict[int, dict[str, Any]]) -> Table:
    lines: list[tuple[str, ...]] = []
    for number, share in _shares(rows).items():
        cells = [_range(rows.get((arm, number), {}), study.split) for arm in ARMS]
        differences = [_difference(rows, number, other, study.split) for other in (FRESH, RANDOM_MASK)]
        lines.append((f"{100 * share:.3g} %", *cells, *differences))
    return Table(
        title=f"{study.split.capitalize()} accuracy, in points",
        head=("weights left", *ARMS, f"{TICKET} less {FRESH}", f"{TICKET} less {RANDOM_MASK}"),
        rows=(("100 %", _range(dense, study.split), *[""] * (len(ARMS) + 1)), *lines),
        note="Means with lowest and highest seed; differences are paired by seed, with Student's 95 % interval. The "
        "dense network is in the first column.",
    )


def _range(seeds: dict[int, dict[str, Any]], split: str) -> str:
    if not seeds:
        return "\N{EN DASH}"
    values = _values(seeds, split)
    if len(values) == 1:
        return points(values.mean())
    return f"{points(values.mean())} [{points(values.min())}, {points(values.max())}]"


def _difference(rows: Rows, number: int, other: str, split: str) -> str:
    ours, theirs = rows.get((TICKET, number), {}), rows.get((other, number), {})
    pairs = np.array([ours[seed][split] - theirs[seed][split] for seed in sorted(ours.keys() & theirs.keys())])
    if len(pairs) < 2:
        return points(pairs.mean()) if len(pairs) else "\N{EN DASH}"
    return interval(student(pairs))


def _speed(rows: Rows, dense: dict[int, dict[str, Any]]) -> Table:
    """Return after which epoch validation accuracy was highest, on average."""
    lines: list[tuple[str, ...]] = [("100 %", _fastest(dense), *[""] * (len(ARMS) - 1))]
    for number, share in _shares(rows).items():
        lines.append((f"{100 * share:.3g} %", *(_fastest(rows.get((arm, number), {})) for arm in ARMS)))
    return Table(
        title="The epoch with the highest validation accuracy",
        head=("weights left", *ARMS),
        rows=tuple(lines),
        note="Means over seeds; where several epochs are as good, the first. The dense network is in the first column.",
    )


def _fastest(seeds: dict[int, dict[str, Any]]) -> str:
    best = [1 + int(np.argmax(one["curve"])) for one in seeds.values() if one["curve"]]
    return f"{np.mean(best):.1f}" if best else "\N{EN DASH}"
