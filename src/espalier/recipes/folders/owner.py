"""Which process is at work on a run: a lock in its folder, which the system takes away with the process.

.process    {"host", "pid", "locked"}: written and locked while a process is at work, removed at its end

A file that nobody has locked was left by a process that was killed. What another machine has locked is not known here.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import time
from pathlib import Path
from typing import IO, Any

from ...core import FileError

_FILE = ".process"
_TRIES, _PAUSE_SECONDS = 5, 0.1  # who looks whether the lock is taken has it for a moment
_open: set[IO[str]] = set()  # the locks of this process


class Owner:
    """This process, as the one at work on a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: IO[str] | None = None

    def begin(self) -> None:
        """Take the lock; where the system has none the run goes on without.

        Raises:
            FileError: another process is at work on the run, or the folder cannot be written.
        """
        try:
            self.file = open(self.folder / _FILE, "a+", encoding="utf-8")
        except OSError as error:
            raise FileError(f"cannot write {self.folder / _FILE}: {error.strerror or error}") from error
        taken = _taken(self.file)
        if taken is False:
            self.file.close()
            self.file = None
            raise FileError(f"{self.folder}: {_told(self.folder)} is at work on this run; wait for it, or end it first")
        self.file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "locked": taken is True}, self.file)
        self.file.flush()
        _open.add(self.file)

    def end(self) -> None:
        """Let the lock go."""
        if self.file is not None:
            (self.folder / _FILE).unlink(missing_ok=True)
            _open.discard(self.file)
            self.file.close()
            self.file = None


def status_of(folder: Path, written: str) -> str:
    """Return what a run's status is now: as ``run.json`` has it, but where that says "running", what its process does.

    Returns:
        "running", "stopped" where its process is gone, or "unknown" where that cannot be seen from here.
    """
    if written != "running":
        return written
    data = _read(folder)
    if not data.get("locked") or data.get("host") != socket.gethostname():
        return "unknown"
    try:
        with open(folder / _FILE, encoding="utf-8") as file:
            taken = _taken(file, shared=True)
    except OSError:
        return "unknown"
    return {True: "stopped", False: "running", None: "unknown"}[taken]


def _taken(file: IO[str], *, shared: bool = False) -> bool | None:
    """Lock a file until it is closed; return whether that was done, False where another has it, None where none can."""
    fcntl = _fcntl()
    if fcntl is None:
        return None
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if shared:
                return False
            time.sleep(_PAUSE_SECONDS)
        except OSError:  # a file system without locks
            return None
    return False


def _fcntl() -> Any:
    """Return the module of POSIX locks, or None where there is none."""
    try:
        return importlib.import_module("fcntl")
    except ImportError:
        return None


def _read(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _told(folder: Path) -> str:
    data = _read(folder)
    return f"process {data['pid']} on {data['host']}" if {"pid", "host"} <= set(data) else "another process"


def _drop() -> None:
    """Close the locks in a child: a worker that outlives its parent must not hold them."""
    for file in _open:
        file.close()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop)
