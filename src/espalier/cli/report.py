"""``espalier report``: from ``run.json`` to ``report.html``."""

from __future__ import annotations

from pathlib import Path

from ..core.atomic import write_text
from ..recipes.folder import read_run
from ..report import render
from .options import Report


def report(chosen: Report) -> None:
    """Write the report of a run folder and say where it is."""
    print(write_report(Path(chosen.run)))


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into a run folder and return its path."""
    folder = folder.parent if folder.name == "run.json" else folder
    path = folder / "report.html"
    write_text(path, render(read_run(folder)))
    return path
