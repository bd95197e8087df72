"""What the tests of executors have done elsewhere: work that leaves a trace, fails, or kills its own process."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any


def work(payload: dict[str, Any]) -> dict[str, Any]:
    """Square a number; ``die`` kills the process the first so many times, ``fail`` raises."""
    trace = Path(payload["folder"]) / f"{payload['number']}.txt"
    with open(trace, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    begun = len(trace.read_text(encoding="utf-8").splitlines())
    if begun <= payload.get("die", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if payload.get("fail"):
        raise ValueError("no such number")
    return {"square": payload["number"] ** 2, "pid": os.getpid()}


def traces(folder: Path) -> dict[int, int]:
    """Return how often each number was begun."""
    return {int(path.stem): len(path.read_text(encoding="utf-8").splitlines()) for path in folder.glob("*.txt")}
