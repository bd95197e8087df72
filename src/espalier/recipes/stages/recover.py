"""Recover: mend a cut network without training."""

from __future__ import annotations

from ...core import Plan
from ...core.run import Point
from ..folders.checkpoints import Handle
from ..mending import mended
from ..steps import Recover
from ..training.state import State
from ..work import Work
from .path import costs


def do(step: Recover, name: str, work: Work, handle: Handle) -> Handle:
    """Mend the network against the dense one, with all that was cut so far."""
    before = handle

    def mend() -> tuple[State, list[str]]:
        state = before.open().copied()
        networks = work.dense.open().model, state.model
        return state, mended(step.how, networks, Plan(dict(state.kept)), work.task, batches=step.batches)

    handle, notes = work.checkpoints.change(name, mend)
    for note in notes:
        work.journal.note(note)
    cost, score = costs(work, name, handle), work.score(f"{name}/score", handle)
    work.visit(Point(stage="recovered", kind="cut", macs=cost.macs, params=cost.params, score=score))
    return handle
