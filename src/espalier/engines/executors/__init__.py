"""Executors of many independent calls: in this process, in a pool of processes, or on a Ray cluster.

All of them do the same: what a call returns depends on its payload alone, so it does not matter where it ran, and a
worker that dies costs the call that it was at and nothing else. What is imported here needs neither torch nor Ray.
"""

from __future__ import annotations

from typing import Literal

from .calls import Call, Done, Executor
from .in_process import InProcess
from .pool import Pool
from .ray_core import RayCore

Name = Literal["inprocess", "pool", "ray"]


def named(name: Name, *, workers: int = 1, threads: int = 1) -> Executor:
    """Return the executor called ``name``.

    Args:
        name: "inprocess" (one call after another), "pool" (spawned processes of this machine), or "ray" (the cluster
            that ``RAY_ADDRESS`` names, or a local one).
        workers: calls at a time.
        threads: that each call computes with.
    """
    if name == "inprocess":
        return InProcess(threads)
    return Pool(workers, threads) if name == "pool" else RayCore(workers, threads)


__all__ = ["Call", "Done", "Executor", "InProcess", "Name", "Pool", "RayCore", "named"]
