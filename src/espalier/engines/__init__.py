"""Where a run runs: one process, or the processes of a group, which hold whole networks (DDP) or shards (FSDP2).

``current()`` decides from what torchrun says in the environment. What is imported here needs no torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

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


__all__ = ["EngineError", "Name", "current", "leads", "restarted"]
