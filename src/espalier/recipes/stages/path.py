"""What the networks on the way cost."""

from __future__ import annotations

from ...core import Cost
from ...graph import trace
from ..checkpoints import Handle
from ..work import Work


def costs(work: Work, name: str, handle: Handle) -> Cost:
    """Return what a state's network costs."""
    found = work.checkpoints.once(f"{name}/cost", lambda: vars(trace(handle.open().model, work.example).cost()))
    return Cost(**found)
