"""Ray core: calls on a cluster, or on a local one that is started for them.

``RAY_ADDRESS`` names a cluster ("auto" for the one of this machine); without it a local one is started and stopped.
Ray begins a call again when its worker or its machine dies, and only that one. What calls read and write must be on
a file system that all machines see.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...core import cause
from .. import EngineError
from .calls import Backlog, Call, Done, Work, attempt

_RETRIES = 2  # of a call whose worker died


@dataclass(frozen=True)
class RayCore:
    """Runs calls as Ray tasks.

    Attributes:
        workers: calls at a time.
        threads: processors that each call takes.
    """

    workers: int = 2
    threads: int = 1

    def run(self, work: Work, calls: Sequence[Call]) -> Generator[Done, None, None]:
        """Do the calls, ``workers`` at a time.

        Raises:
            EngineError: Ray is not installed, or the cluster does not answer.
        """
        ray = _imported()
        with self._cluster(ray):
            remote = ray.remote(num_cpus=self.threads, max_retries=_RETRIES, retry_exceptions=False)(attempt)
            backlog, busy = Backlog(calls), {}
            try:
                while True:
                    while len(busy) < self.workers and (call := backlog.take()) is not None:
                        busy[remote.remote(work, call, self.threads)] = call
                    if not busy:
                        break
                    (reference, *_), _ = ray.wait(list(busy), num_returns=1)
                    yield from backlog.ended(_result(ray, reference, busy.pop(reference)))
            finally:
                for reference in busy:
                    ray.cancel(reference, force=True)

    @contextmanager
    def _cluster(self, ray: Any) -> Iterator[None]:
        """Join the cluster, or start one of this machine alone; one that the caller has joined stays joined."""
        if ray.is_initialized():
            yield
            return
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if os.environ.get("RAY_ADDRESS"):
            how["address"] = os.environ["RAY_ADDRESS"]
        else:
            path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # the user's own modules are found there
            how |= {"num_cpus": self.workers * self.threads, "include_dashboard": False}
            how["runtime_env"] = {"env_vars": path}
        try:
            ray.init(**how)
        except Exception as error:  # connection errors of many kinds
            raise EngineError(f"Ray does not start: {cause(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _result(ray: Any, reference: Any, call: Call) -> Done:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return Done(call.key, error=f"its worker died: {cause(error).splitlines()[0]}", attempts=_RETRIES + 1)


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise EngineError("the executor ray needs the package ray: pip install 'espalier[cluster]'") from error
    return ray
