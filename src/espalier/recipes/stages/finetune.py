"""Fine-tune: train a cut network, with the moments that its optimizer has."""

from __future__ import annotations

from ...core.run import Point
from ..folders.checkpoints import Handle
from ..steps import Finetune
from ..work import Work
from .path import costs


def do(step: Finetune, name: str, work: Work, handle: Handle) -> Handle:
    """Train, and add the result to the path."""
    if not step.epochs:
        return handle
    handle, score = work.learn(name, handle, step, "fine-tuning")
    cost = costs(work, name, handle)
    work.visit(Point(stage="fine-tuned", kind="trained", macs=cost.macs, params=cost.params, score=score))
    return handle
