"""One call after another, in this process: nothing to start, and a debugger sees everything."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from .calls import Backlog, Call, Done, Work, attempt


@dataclass(frozen=True)
class InProcess:
    """Runs calls here.

    Attributes:
        threads: that each call computes with.
    """

    threads: int = 1
    workers: int = 1

    def run(self, work: Work, calls: Sequence[Call]) -> Generator[Done, None, None]:
        """Do each call in turn, those that others wait for first."""
        backlog = Backlog(calls)
        while (call := backlog.take()) is not None:
            yield from backlog.ended(attempt(work, call, self.threads))
