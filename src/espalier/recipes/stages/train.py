"""Train: the dense network, before anything is cut."""

from __future__ import annotations

from ...graph.files import save
from ..folders.checkpoints import Handle
from ..steps import Train
from ..work import Work


def do(step: Train, name: str, work: Work, handle: Handle) -> Handle:
    """Train, and take the result for the dense network where nothing was cut yet."""
    if not step.epochs:
        return handle
    handle, _ = work.learn(name, handle, step, "training")
    if work.pruned:
        return handle
    work.dense = handle
    work.checkpoints.pin("dense", handle)
    if work.journal.folder is not None:
        path = work.journal.folder / "dense.safetensors"
        work.checkpoints.once(f"{name}/save", lambda: work.engine.first(lambda: save(handle.open().model, path)))
    return handle
