"""``espalier export``: the result of a run in another format."""

from __future__ import annotations

import math
from pathlib import Path

from .. import backends
from ..recipes.folders.located import located
from ..recipes.steps.export import file_name
from .answer import Answer
from .options import Export
from .pair import from_run


def export(chosen: Export) -> Answer:
    """Write the result, and say where it is and how far its answers are from PyTorch's."""
    folder = located(chosen.run)
    pair = from_run(folder, chosen.batch, trust=chosen.trust, samples=chosen.samples)
    path = Path(chosen.out) if chosen.out else folder / file_name(chosen.to, chosen.int8)
    int8 = None
    if chosen.int8:
        int8 = backends.Int8(
            batches=pair.inputs, samples=chosen.samples, scheme=chosen.scheme, least_sqnr_db=chosen.least_sqnr_db
        )
    agreement = backends.export(pair.small, pair.example, path, int8=int8)
    sqnr = agreement.sqnr_db if math.isfinite(agreement.sqnr_db) else None  # JSON has no infinity
    size = backends.bytes_of(path)
    data = {"file": str(path), "bytes": size, "batch": chosen.batch, "int8": chosen.int8}
    data |= {"max_difference": agreement.max_difference, "sqnr_db": sqnr}
    words = "it answers as PyTorch does" if sqnr is None else f"signal to noise against PyTorch {sqnr:.0f} dB"
    return Answer(data, (str(path), f"{size:,} bytes; {words}; largest difference {agreement.max_difference:.2g}"))
