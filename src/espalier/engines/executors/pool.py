"""A pool of spawned processes that outlives the death of any of them.

Each worker is a ``ProcessPoolExecutor`` of one process: when it is killed, only that executor breaks, with the one call
that it was at; the call begins again in a new process, and the others notice nothing. (One executor with many processes
gives up every call that is under way.)
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process

from .. import EngineError
from .calls import Backlog, Call, Done, Work, attempt

_ATTEMPTS = 3  # workers that a call may cost: a call that kills its worker every time is at fault itself


@dataclass(frozen=True)
class Pool:
    """Runs calls in processes of this machine.

    Attributes:
        workers: processes.
        threads: of each.
    """

    workers: int = 2
    threads: int = 1

    def run(self, work: Work, calls: Sequence[Call]) -> Generator[Done, None, None]:
        """Do the calls, ``workers`` at a time."""
        backlog = Backlog(calls)
        workers = [_Worker(self.threads) for _ in range(min(self.workers, len(calls)))]
        try:
            while True:
                for worker in workers:
                    if worker.call is None and (call := backlog.take()) is not None:
                        worker.begin(work, call)
                busy = {worker.future: worker for worker in workers if worker.future is not None}
                if not busy:
                    break
                for future in wait(busy, return_when=FIRST_COMPLETED).done:
                    yield from busy[future].ended(backlog)
        finally:
            for worker in workers:
                worker.stop()


@dataclass(eq=False)
class _Worker:
    """One process, and the call that it is at.

    Raises:
        EngineError: it does not start.
    """

    threads: int
    call: Call | None = None
    future: Future[Done] | None = None
    executor: ProcessPoolExecutor = field(init=False)
    pid: int = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a process."""
        self.executor = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_settle)
        try:
            self.pid = self.executor.submit(os.getpid).result()
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process ended as it started; a script that starts a pool needs "
                'if __name__ == "__main__": around what it does'
            ) from error

    def begin(self, work: Work, call: Call) -> None:
        """Give the process a call."""
        self.call, self.future = call, self.executor.submit(attempt, work, call, self.threads)

    def ended(self, backlog: Backlog) -> Iterator[Done]:
        """Yield what became of the call; after a death it goes back to the others, and a new process starts."""
        assert self.call is not None and self.future is not None
        call, future = self.call, self.future
        self.call = self.future = None
        try:
            yield from backlog.ended(future.result())
        except BrokenProcessPool:
            self.executor.shutdown(wait=False)
            self.start()
            if call.attempts + 1 < _ATTEMPTS:
                backlog.again(call)
            else:
                died = replace(call, attempts=_ATTEMPTS)
                error = f"its worker process died {_ATTEMPTS} times: killed, or out of memory"
                yield from backlog.ended(Done(call.key, error=error, attempts=died.attempts))

    def stop(self) -> None:
        """End the process; at once where it is at a call."""
        if self.call is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        self.executor.shutdown(wait=True, cancel_futures=True)


def _settle() -> None:
    """Prepare a worker: Ctrl-C is for its parent, which ends it; and it must not outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
