"""Save: the result as a file, read back before anybody relies on it."""

from __future__ import annotations

import torch

from ...core import CutError
from ...graph.files import load
from ...graph.files import save as save_model
from ...graph.probes.outputs import logits
from ..folders.checkpoints import Handle
from ..steps import Save
from ..work import Work


def do(step: Save, name: str, work: Work, handle: Handle) -> Handle:
    """Write the network into the run folder, where there is one."""
    if work.journal.folder is not None:
        work.checkpoints.once(name, lambda: work.engine.first(lambda: _save(step, work, handle)))
        work.journal.update()
    return handle


def _save(step: Save, work: Work, handle: Handle) -> None:
    assert work.journal.folder is not None
    model = handle.open().model
    path = work.journal.folder / step.name
    save_model(model, path)
    back = load(path, work.original).eval()
    with torch.no_grad():
        same = torch.equal(logits(model(work.example)), logits(back(work.example)))
    if not same:
        raise CutError("the saved model answers differently after it is loaded: it keeps state outside its tensors")
