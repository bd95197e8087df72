"""OpenVINO on the CPU, in float32, from the exported ONNX file.

Its Python package reports its use to its makers as it is imported; here it is imported as if the package that does so
were not installed, which it allows for.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..graph.operators import Sized
from .onnx_calls import WRITERS, branches, number_in
from .onnx_file import missing, write_onnx
from .protocol import BackendError, Run, tensors
from .torch_calls import QUARTILE, chunks

_TELEMETRY = "openvino_telemetry"
_LAYOUT = ("Reorder", "Input", "Output", "Parameter", "Result", "Constant", "Const")


@dataclass(frozen=True)
class OpenVino:
    """The network as OpenVINO compiles it for this CPU."""

    name: str = "openvino"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return missing("openvino", "onnx", "onnxscript", "onnxruntime", extra="openvino")

    def version(self) -> str:
        """Return OpenVINO's version, and PyTorch's, which exports."""
        return f"openvino {runtime().__version__.split('-')[0]}, exported by torch {torch.__version__}"

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Run:
        """Return the compiled network.

        Raises:
            BackendError: the model cannot be exported or compiled.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, example, path)
            return compiled_of(path, example, threads)

    def times(self, kind: str) -> bool:
        """Whether the operator has a kernel of its own after fusion."""
        return kind in WRITERS

    def time(self, calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
        """Return the milliseconds of each call alone, by the runtime's own counters."""
        return [ms for chunk in chunks(calls, most=32) for ms in _profiled(chunk, threads, sweeps)]


def runtime() -> Any:
    """Import OpenVINO without its telemetry."""
    if "openvino" in sys.modules or _TELEMETRY in sys.modules:
        import openvino

        return openvino
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] - how Python says: not to be imported
    try:
        import openvino
    finally:
        del sys.modules[_TELEMETRY]
    return openvino


def read(path: Path) -> Any:
    """Return OpenVINO's model of an ONNX or IR file.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        return runtime().Core().read_model(str(path))
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot read the network: {str(error)[:300]}") from error


def compiled_of(path: Path, example: Any, threads: int) -> Run:
    """Return a function that runs an ONNX or IR file on ``example``.

    Raises:
        BackendError: OpenVINO cannot load it.
    """
    request = _compile(read(path), threads).create_infer_request()
    given = tensors(example)
    names = list(request.model_inputs)
    if len(names) != len(given):
        raise BackendError(f"the exported network takes {len(names)} inputs, the example has {len(given)} tensors")
    feed = [tensor.detach().cpu().numpy() for tensor in given]

    def run() -> list[Tensor]:
        results = request.infer(dict(enumerate(feed)), share_inputs=True)
        return [torch.from_numpy(np.array(array)) for array in results.values()]

    return run


def _compile(model: Any, threads: int, *, counters: bool = False) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # by default it computes in bfloat16 where the processor can
        "PERF_COUNT": counters,
    }
    try:
        return runtime().Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile the network: {str(error)[:300]}") from error


def _profiled(calls: Sequence[Sized], threads: int, sweeps: int) -> list[float]:
    built = branches(calls)
    result = [float("nan")] * len(calls)
    if not built.nodes:
        return result
    model = runtime().Core().read_model(built.model())
    request = _compile(model, threads, counters=True).create_infer_request()
    nodes: dict[tuple[int, str], list[float]] = defaultdict(list)
    for sweep in range(sweeps + 1):
        request.infer(built.feeds, share_inputs=True)
        number = None
        for counter in request.profiling_info if sweep else ():
            named = number_in(counter.node_name)
            number = number if named is None else named  # in order of execution: a nameless node follows its own input
            if number is not None and counter.node_type not in _LAYOUT and str(counter.status).endswith("EXECUTED"):
                nodes[number, counter.node_name].append(counter.real_time.total_seconds())
    for (number, _), seconds in nodes.items():
        own = 1e3 * float(np.percentile(seconds, QUARTILE))
        result[number] = own if np.isnan(result[number]) else result[number] + own
    return result
