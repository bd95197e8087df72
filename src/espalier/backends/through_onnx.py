"""What the runtimes that read ONNX files have in common."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..graph.probes.operators import Sized
from .onnx_calls import WRITERS, Branches, branches
from .onnx_file import write_onnx
from .protocol import Prepared
from .torch_calls import QUARTILE, chunks

# One kernel's run: the number of its call, its node's name, milliseconds.
Timing = tuple[int, str, float]


class ThroughOnnx(ABC):
    """A backend that runs the network as an exported ONNX file."""

    @abstractmethod
    def load(self, path: Path, example: Any, threads: int) -> Prepared:
        """Return what runs a file on ``example``."""

    @abstractmethod
    def profile(self, built: Branches, threads: int, sweeps: int) -> Iterable[Timing]:
        """Yield the time of every kernel of a network of branches, each sweep anew; the warm-up is left out."""

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        """Return what runs the exported model on ``example``.

        Raises:
            BackendError: the model cannot be exported or loaded.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, example, path)
            return self.load(path, example, threads)

    def times(self, kind: str) -> bool:
        """Whether the operator has a kernel of its own after fusion."""
        return kind in WRITERS

    def time(self, calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
        """Return the milliseconds of each call alone, by the runtime's own clock of their kernels."""
        return [ms for chunk in chunks(calls, most=32) for ms in self._alone(chunk, threads, sweeps)]

    def _alone(self, calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
        result = [float("nan")] * len(calls)
        built = branches(calls)
        if not built.nodes:
            return result
        kernels: dict[tuple[int, str], list[float]] = defaultdict(list)
        for number, node, ms in self.profile(built, threads, sweeps):
            kernels[number, node].append(ms)
        for (number, _), all_ms in kernels.items():
            own = float(np.percentile(all_ms, QUARTILE))
            result[number] = own if np.isnan(result[number]) else result[number] + own
        return result
