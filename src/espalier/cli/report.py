"""``espalier report``: from ``run.json`` to ``report.html``."""

from __future__ import annotations

from pathlib import Path

from .. import api
from .options import Report


def report(chosen: Report) -> None:
    """Write the report of a run folder and say where it is."""
    folder = Path(chosen.run)
    print(api.write_report(folder.parent if folder.name == "run.json" else folder))
