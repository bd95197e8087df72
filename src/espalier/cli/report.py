"""``espalier report``: from ``run.json`` to ``report.html``."""

from __future__ import annotations

import json

from .. import api
from ..recipes.folders.folder import read_run
from ..recipes.folders.located import located
from .answer import Answer
from .options import Report


def report(chosen: Report) -> Answer:
    """Write the report of a run folder and say where it is."""
    folder = located(chosen.run)
    path = api.write_report(folder)
    return Answer({"report": str(path), "run": json.loads(read_run(folder).to_json())}, (str(path),))
