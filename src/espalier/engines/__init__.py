"""Where a run runs: one process, or the processes of a group, which hold whole networks (DDP) or shards (FSDP2).

``current()`` decides from what torchrun says in the environment. What is imported here needs no torch.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NoReturn

from ..core import EspalierError

if TYPE_CHECKING:
    from .engine import Engine

Name = Literal["auto", "ddp", "fsdp"]


class EngineError(EspalierError):
    """The engine that was asked for cannot run here."""


def leads() -> bool:
    """Say whether this process is rank 0, or the only one: the one that writes files and speaks."""
    return os.environ.get("RANK", "0") == "0"


def restarted() -> bool:
    """Say whether torchrun started this group anew after one of its processes had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0


def leave(code: int) -> NoReturn:
    """End this process with an exit code, one of a group without the last part of Python's own end.

    Threads of gloo that are still letting go of a tensor when the interpreter is taken down end the process by
    ``std::terminate``, after its work is done and with an exit code that torchrun takes for a failure. So a process
    that torchrun started does what is registered for the end, writes out what it has printed, and is gone.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        sys.exit(code)
    atexit._run_exitfuncs()  # os._exit would leave out what is registered
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def current(name: Name = "auto") -> Engine:
    """Return the engine for this process; every process of a group calls it.

    Under torchrun it joins the group: NCCL between GPUs, one a process, gloo between CPUs.

    Args:
        name: "ddp", "fsdp", or "auto": DDP where there are several processes.

    Raises:
        EngineError: "ddp" or "fsdp" in a single process that torchrun did not start, or there are too few GPUs.
    """
    from .group import joined

    group = joined()
    if group is None:
        if name == "fsdp":
            raise EngineError(
                f"engine {name!r} needs several processes: torchrun --nproc-per-node 2 --no-python espalier ..."
            )
        from .engine import Alone

        return Alone()
    if name == "fsdp":
        from .fsdp import Fsdp

        return Fsdp(group)
    from .ddp import Ddp

    return Ddp(group)


__all__ = ["EngineError", "Name", "current", "leads", "leave", "restarted"]
