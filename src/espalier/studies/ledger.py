"""The ledger of a study: one line a result, in SQLite, written by the driver alone as each comes in.

A result that is in it is never computed again by the same code; deleting the file forgets them all.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import FileError
from ..engines.executors import Done
from ..recipes.folders.folder import now
from .jobs import Job

_FILE = "ledger.sqlite"
_COLUMNS = "key TEXT, code TEXT, kind TEXT, cell TEXT, outcome TEXT, error TEXT, seconds REAL, attempts INT, at TEXT"


@dataclass(frozen=True)
class Known:
    """A result as the ledger has it; ``error`` is "" where the work was done."""

    outcome: dict[str, Any] | None
    error: str
    seconds: float
    code: str


class Ledger:
    """An open ledger."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path

    def known(self, code: str = "") -> dict[str, Known]:
        """Return the newest result of each key, of this code alone where one is given; results before failures."""
        found: dict[str, Known] = {}
        rows = self._connection.execute(
            "SELECT key, outcome, error, seconds, code FROM results WHERE ? IN ('', code) ORDER BY error = '', rowid",
            (code,),
        )
        for key, outcome, error, seconds, own in rows:
            found[key] = Known(json.loads(outcome), error, seconds, own)
        return found

    def enter(self, job: Job, done: Done, code: str) -> None:
        """Write what became of a job; it is on the disk when this returns.

        Raises:
            FileError: the disk is full, or the file is gone.
        """
        cell, outcome = json.dumps(dict(job.cell)), json.dumps(done.value)
        line = (job.key, code, job.kind, cell, outcome, done.error, done.seconds, done.attempts, now())
        try:
            with self._connection:
                self._connection.execute(f"INSERT OR REPLACE INTO results VALUES ({', '.join('?' * len(line))})", line)
        except sqlite3.Error as error:
            raise FileError(f"{self._path}: {error}; the results so far are in it") from error


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """Open the ledger of a study's folder.

    Raises:
        FileError: it is damaged, or cannot be written.
    """
    path = folder / _FILE
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            with connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS results ({_COLUMNS}, PRIMARY KEY (key, code))")
            yield Ledger(connection, path)
    except sqlite3.Error as error:
        raise FileError(f"{path}: {error}; it may be deleted: what it knew is then computed again") from error
