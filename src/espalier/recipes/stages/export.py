"""Export: the result in another format, beside the model file."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ... import backends
from ...core.run import Exported
from ..folders.checkpoints import Handle
from ..steps import Export
from ..steps.export import file_name
from ..work import Work


def do(step: Export, name: str, work: Work, handle: Handle) -> Handle:
    """Write the network into the run folder, where there is one, and note how it agrees with PyTorch."""
    folder = work.journal.folder
    if folder is not None:
        found = work.checkpoints.once(
            name, lambda: work.engine.first(lambda: _export(step, work, handle.open().model, folder))
        )
        work.journal.update(exports=(*work.journal.run.exports, Exported(**found)))
    return handle


def _export(step: Export, work: Work, model: Any, folder: Path) -> dict[str, Any]:
    path = folder / file_name(step.to, step.int8)
    int8 = None
    if step.int8:
        inputs = work.task.example(step.samples + step.samples // 4)  # a part is kept to compare on
        int8 = backends.Int8(
            batches=(inputs,), samples=step.samples, scheme=step.scheme, least_sqnr_db=step.least_sqnr_db
        )
    agreement = backends.export(model, work.task.example(step.batch), path, int8=int8)
    return asdict(
        Exported(
            file=path.name,
            int8=step.int8,
            bytes=backends.bytes_of(path),
            max_difference=agreement.max_difference,
            sqnr_db=agreement.sqnr_db if math.isfinite(agreement.sqnr_db) else None,
        )
    )
