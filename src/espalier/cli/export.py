"""``espalier export``: the result of a run in another format."""

from __future__ import annotations

import math
from pathlib import Path

from .. import backends
from ..recipes.folders.located import located
from .answer import Answer
from .options import Export
from .pair import from_run

_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}


def export(chosen: Export) -> Answer:
    """Write the result, and say where it is and how far its answers are from PyTorch's."""
    folder = located(chosen.run)
    pair = from_run(folder, chosen.batch, trust=chosen.trust)
    path = Path(chosen.out) if chosen.out else folder / f"model{_SUFFIXES[chosen.to]}"
    agreement = backends.export(pair.small, pair.example, path)
    sqnr = agreement.sqnr_db if math.isfinite(agreement.sqnr_db) else None  # JSON has no infinity
    data = {"file": str(path), "bytes": path.stat().st_size, "batch": chosen.batch}
    data |= {"max_difference": agreement.max_difference, "sqnr_db": sqnr}
    words = "it answers as PyTorch does" if sqnr is None else f"signal to noise against PyTorch {sqnr:.0f} dB"
    return Answer(data, (str(path), f"{words}; largest difference {agreement.max_difference:.2g}"))
