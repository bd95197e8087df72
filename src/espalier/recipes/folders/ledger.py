"""The ledger: one line a run, in an SQLite file beside the run folders.

The run folders are the truth; the ledger is brought up to date from them whenever it is opened, so it may be deleted.

    key = SHA-256(recipe with model, data and seed; version of the code)        equal keys: the same work
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from ...core import FileError, UnknownNameError
from ...core.run import Run
from .folder import RUN, read_run

_FILE = "ledger.sqlite"


@dataclass(frozen=True)
class Line:
    """What the ledger knows of a run; ratios are after / before, accuracies in [0, 1], None where not measured."""

    name: str
    status: str
    model: str
    data: str
    key: str
    started: str
    macs_ratio: float | None
    params_ratio: float | None
    latency_ratio: float | None
    accuracy_before: float | None
    accuracy_after: float | None
    written: float  # when run.json was, in seconds: what the ledger has seen of it


def sync(root: Path) -> list[Line]:
    """Bring the ledger of a folder of runs up to date, and return its lines, the oldest first.

    Raises:
        FileError: there is no such folder.
    """
    if not root.is_dir():
        raise FileError(f"{root}: no such folder of runs")
    found = {path.parent.name: path for path in root.glob(f"*/{RUN}")}
    try:
        with _opened(root) as ledger:
            known = {line.name: line for line in _lines(ledger)}
            for name in known.keys() - found.keys():
                ledger.execute("DELETE FROM runs WHERE name = ?", (name,))
            for name, path in found.items():
                written = path.stat().st_mtime
                if name not in known or known[name].written != written:
                    _enter(ledger, path, written)
            return _lines(ledger)
    except sqlite3.Error as error:
        raise FileError(f"{root / _FILE}: {error}; the ledger may be deleted, the runs are in their folders") from error


def record(root: Path) -> None:
    """Bring the ledger up to date; a run goes on where that fails."""
    try:
        sync(root)
    except FileError as error:
        logging.getLogger("espalier").warning("warning: the ledger was not written: %s", error)


def find(root: Path, name: str) -> Run:
    """Return a run by its name.

    Raises:
        UnknownNameError: there is none of that name.
    """
    names = [line.name for line in sync(root)]
    if name not in names:
        raise UnknownNameError("run", name, names)
    return read_run(root / name)


def line_of(run: Run, name: str, written: float) -> Line:
    """Return a run as a line."""

    def ratio(measure: str) -> float | None:
        before, after = getattr(run.before, measure), getattr(run.after, measure)
        return after / before if before and after is not None else None

    text = run.recipe + run.environment.get("espalier", "")
    return Line(
        name=name,
        status=run.status,
        model=run.model,
        data=run.data,
        key=hashlib.sha256(text.encode()).hexdigest()[:16],
        started=run.started,
        macs_ratio=ratio("macs"),
        params_ratio=ratio("params"),
        latency_ratio=run.latency_ratio[1] if run.latency_ratio else None,
        accuracy_before=run.before.accuracy,
        accuracy_after=run.after.accuracy,
        written=written,
    )


def _enter(ledger: sqlite3.Connection, path: Path, written: float) -> None:
    try:
        line = line_of(read_run(path.parent), path.parent.name, written)
    except FileError as error:
        logging.getLogger("espalier").warning("warning: left out of the ledger: %s", error)
        return
    marks = ", ".join("?" for _ in fields(Line))
    values = [getattr(line, field.name) for field in fields(Line)]
    ledger.execute(f"INSERT OR REPLACE INTO runs VALUES ({marks})", values)


def _lines(ledger: sqlite3.Connection) -> list[Line]:
    return [Line(*row) for row in ledger.execute("SELECT * FROM runs ORDER BY started, name")]


@contextmanager
def _opened(root: Path) -> Iterator[sqlite3.Connection]:
    columns = ", ".join(f"{field.name}{' PRIMARY KEY' if field.name == 'name' else ''}" for field in fields(Line))
    with closing(sqlite3.connect(root / _FILE, timeout=30)) as ledger:
        ledger.execute("PRAGMA journal_mode=WAL")
        with ledger:
            ledger.execute(f"CREATE TABLE IF NOT EXISTS runs ({columns})")
            yield ledger
