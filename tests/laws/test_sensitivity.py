"""Scans of sensitivity: each group alone, against cutting by hand, and what the report makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import espalier as es
from espalier.core.findings import Bars, Lines
from espalier.studies.files import StudyError, checked
from espalier.studies.found import findings
from espalier.studies.run import run
from espalier.tasks import load_task

TRAIN = {"epochs": 2, "lr": 0.1}


def data(**changes: Any) -> dict[str, Any]:
    subject = {"name": "digits", "model": "espalier:digits_cnn", "data": "digits", "batch_size": 256, "train": TRAIN}
    return {"kind": "sensitivity", "name": "scan", "tasks": [subject], "seeds": [0], "ratios": [0.5, 0.75], **changes}


def test_a_scan_is_what_cutting_by_hand_gives(tmp_path: Path) -> None:
    outcome = run(checked(data()), tmp_path)
    assert not outcome.failed
    ((_, known),) = outcome.of("sensitivity")
    ((_, dense),) = outcome.of("dense")
    assert known.outcome and dense.outcome
    model = es.load(tmp_path / dense.outcome["file"], es.model("espalier:digits_cnn", classes=10)).eval()
    task = load_task("digits", batch_size=256)
    graph = es.trace(model, task.example())
    scores = es.criteria.magnitude(model, graph)
    assert known.outcome["dense"] == task.evaluate(model, task.validation) and set(known.outcome["groups"]) == set(
        graph.groups
    )
    for name, rows in known.outcome["groups"].items():
        size = graph.sizes[name]
        assert [(row["ratio"], row["kept"]) for row in rows] == [(0.5, size // 2), (0.75, size // 4)]
        for row in rows:
            kept = torch.topk(scores[name], row["kept"]).indices.sort().values
            small = es.cut(model, graph, es.Plan({name: tuple(kept.tolist())}))
            assert row["accuracy"] == task.evaluate(small, task.validation)


def test_the_findings_name_the_group_that_is_missed_most(tmp_path: Path) -> None:
    found = findings(run(checked(data(criteria=["magnitude", "random"])), tmp_path))
    assert [section.title for section in found.sections] == ["digits, magnitude", "digits, random"]
    parts = found.sections[0].parts
    half, quarter, lines = parts
    assert isinstance(half, Bars) and isinstance(quarter, Bars) and isinstance(lines, Lines)
    worst = max(quarter.rows, key=lambda bar: bar.value)
    assert f"{worst.label} is the group that is missed most" in found.lead
    assert len(lines.lines) == len(half.rows) == 4 and all(points[0] == (0.0, 0.0) for _, points in lines.lines)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"criteria": ["magnitud"]}, "did you mean"),
        ({"split": "test"}, "split"),
        ({"ratios": [0.5, 0.5]}, "there twice"),
    ],
)
def test_mistakes(change: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        checked(data(**change))
