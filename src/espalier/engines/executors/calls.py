"""What executors are given and give back, and the order in which calls may begin."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...core import EspalierError, cause

Work = Callable[[Any], Any]  # a function of a module, so that other processes find it by its name


@dataclass(frozen=True)
class Call:
    """One thing to do.

    Attributes:
        key: names it.
        payload: what the work is called with: plain data.
        after: keys of the calls that must have worked before.
        attempts: how often it was begun by a worker that died.
    """

    key: str
    payload: Any
    after: tuple[str, ...] = ()
    attempts: int = 0


@dataclass(frozen=True)
class Done:
    """What became of a call.

    Attributes:
        key: of the call.
        value: what the work returned: plain data; None where it failed.
        error: why it failed; "" where it worked.
        seconds: that the work took.
        attempts: workers that it took; more than one where some died.
    """

    key: str
    value: Any = None
    error: str = ""
    seconds: float = 0.0
    attempts: int = 1


class Executor(Protocol):
    """Where calls run."""

    @property
    def workers(self) -> int:
        """Calls at a time."""
        ...

    def run(self, work: Work, calls: Sequence[Call]) -> Generator[Done, None, None]:
        """Call ``work(call.payload)`` for each, and yield what became of it as it ends, in any order.

        A call that fails is told of and the others go on; those that come ``after`` it fail too. Closing the generator
        ends the workers at once.
        """
        ...


class Backlog:
    """Calls that have not begun, in their order; those that wait for others stay back."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._left = deque(calls)
        self._pending = {call.key for call in calls}

    def __bool__(self) -> bool:
        """Whether a call has not begun."""
        return bool(self._left)

    def take(self) -> Call | None:
        """Return the next call that may begin, or None where all wait for others."""
        for call in self._left:
            if self._pending.isdisjoint(call.after):
                self._left.remove(call)
                return call
        return None

    def again(self, call: Call) -> None:
        """Put back a call whose worker died."""
        self._left.appendleft(replace(call, attempts=call.attempts + 1))

    def ended(self, done: Done) -> Iterator[Done]:
        """Yield what became of a call, and after a failure what becomes of those that wait for it."""
        self._pending.discard(done.key)
        yield done
        if not done.error:
            return
        for call in [call for call in self._left if done.key in call.after]:
            if call in self._left:
                self._left.remove(call)
                yield from self.ended(Done(call.key, error=f"not begun, as {done.key} failed: {done.error}"))


def attempt(work: Work, call: Call, threads: int) -> Done:
    """Do a call here; an error is what became of it."""
    from ...graph.recording.running import fixed_threads

    begun = time.perf_counter()
    try:
        with fixed_threads(threads):
            value, error = work(call.payload), ""
    except EspalierError as mistake:
        value, error = None, str(mistake)
    except Exception as mistake:  # whatever a user's own model or data raises: the other calls go on
        value, error = None, cause(mistake)
    return Done(call.key, value, error, time.perf_counter() - begun, call.attempts + 1)
