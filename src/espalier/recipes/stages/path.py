"""What the networks on the way cost."""

from __future__ import annotations

from ...core import Cost
from ...core.run import Point
from ...graph import trace
from ..folders.checkpoints import Handle
from ..work import Work


def costs(work: Work, name: str, handle: Handle) -> Cost:
    """Return what a state's network costs."""
    found = work.checkpoints.once(f"{name}/cost", lambda: vars(trace(handle.open().model, work.example).cost()))
    return Cost(**found)


def begin(work: Work) -> None:
    """Put the dense network on the path: the cuts that follow are judged against it."""
    cost, score = work.dense_cost(), work.score("dense/score", work.dense)
    work.visit(Point(stage="dense", kind="dense", macs=cost.macs, params=cost.params, score=score))
