"""``espalier study``: the runs that are left, the findings and their report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.table import Table as Shown

from .. import api
from ..core.findings import Table
from ..engines import executors
from ..studies import StudyError, read
from ..studies.found import findings
from ..studies.run import run
from . import options
from .answer import Answer


def study(chosen: options.Study) -> Answer:
    """Go through a study.

    Raises:
        StudyError: some of its runs failed; the report is written all the same.
    """
    asked = read(chosen.study)
    folder = Path(chosen.out) / asked.name
    executor = executors.named(chosen.executor, workers=chosen.workers, threads=asked.threads)
    try:
        outcome = run(asked, folder, executor=executor, any_code=chosen.any_code)
    except KeyboardInterrupt:
        print("the same command goes on", file=sys.stderr)
        raise
    found = findings(outcome)
    report = api.write_findings(found, folder)
    if outcome.failed:
        count = f"{len(outcome.failed)} of {len(outcome.jobs)} jobs failed; the same command tries them again"
        raise StudyError("\n".join([count, *found.notes, f"report of the others: {report}"]))
    data = {"folder": str(folder), "report": str(report), "computed": outcome.computed, "jobs": len(outcome.jobs)}
    words = (
        f"{outcome.computed} of {len(outcome.jobs)} jobs computed, the others were known",
        found.lead,
        *found.notes,
    )
    tables = tuple(_shown(part) for section in found.sections for part in section.parts if isinstance(part, Table))
    return Answer({**data, "findings": json.loads(found.to_json())}, (*words, *tables, f"report: {report}"))


def _shown(table: Table) -> Shown:
    shown = Shown(*table.head, title=table.title)
    for row in table.rows:
        shown.add_row(*row)
    return shown
