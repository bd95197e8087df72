"""Recover: mend a cut network without training."""

from __future__ import annotations

from ...core import Plan
from ...core.run import Point
from ..checkpoints import Handle
from ..mending import mended
from ..steps import Recover
from ..work import Work
from .path import costs


def do(step: Recover, name: str, work: Work, handle: Handle) -> Handle:
    """Mend the network against the dense one, with all that was cut so far."""
    before = handle

    def work_on():
        state = before.open().copied()
        plan = Plan(dict(state.kept))
        mended(step.how, work, (work.dense.open().model, state.model), plan, step.batches)
        return state, None

    handle, _ = work.checkpoints.change(name, work_on)
    cost, score = costs(work, name, handle), work.score(f"{name}/score", handle)
    work.visit(Point(stage="recovered", kind="cut", macs=cost.macs, params=cost.params, score=score))
    return handle
