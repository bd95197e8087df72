"""OpenVINO on the CPU, in float32, from the exported ONNX file.

Its Python package reports its use to its makers as it is imported; here it is imported as if the package that does so
were not installed, which it allows for.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .onnx_calls import Branches, number_in
from .onnx_file import missing
from .protocol import BackendError, Prepared, Run, tensors
from .through_onnx import ThroughOnnx, Timing

_TELEMETRY = "openvino_telemetry"
_LAYOUT = ("Reorder", "Input", "Output", "Parameter", "Result", "Constant", "Const")


@dataclass(frozen=True)
class OpenVino(ThroughOnnx):
    """The network as OpenVINO compiles it for this CPU."""

    name: str = "openvino"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return missing("openvino", "onnx", "onnxscript", "onnxruntime", extra="openvino")

    def version(self) -> str:
        """Return OpenVINO's version, and PyTorch's, which exports."""
        return f"openvino {runtime().__version__.split('-')[0]}, exported by torch {torch.__version__}"

    def load(self, path: Path, example: Any, threads: int) -> Prepared:
        """Return the compiled network."""
        return compiled_of(path, example, threads)

    def profile(self, built: Branches, threads: int, sweeps: int) -> Iterator[Timing]:
        """Yield the kernels' times from the runtime's own counters."""
        model = core().read_model(built.model())
        request = _compile(model, threads, counters=True).create_infer_request()
        for sweep in range(sweeps + 1):
            request.infer(built.feeds, share_inputs=True)
            number = None
            for counter in request.profiling_info if sweep else ():
                named = number_in(counter.node_name)
                number = number if named is None else named  # in order of execution: a nameless node follows its input
                ran = counter.node_type not in _LAYOUT and str(counter.status).endswith("EXECUTED")
                if number is not None and ran:
                    yield number, counter.node_name, 1e3 * counter.real_time.total_seconds()


def runtime() -> Any:
    """Import OpenVINO without its telemetry."""
    return without_telemetry("openvino")


def without_telemetry(package: str) -> Any:
    """Import a package of OpenVINO's makers as if the one that reports its use were not installed.

    What is imported already stays as it is: whoever did so has decided for this process.
    """
    if package in sys.modules or _TELEMETRY in sys.modules:
        return import_module(package)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] - how Python says: not to be imported
    try:
        return import_module(package)
    finally:
        del sys.modules[_TELEMETRY]


@cache
def core() -> Any:
    """Return the one Core of this process.

    Each Core puts a signal stack of its own on the thread that made it, and puts back, when it goes, the one that it
    found: of two whose lives overlap, the second puts back what the first has unmapped, and the next signal that Python
    handles ends the process.
    """
    return runtime().Core()


def read(path: Path) -> Any:
    """Return OpenVINO's model of an ONNX or IR file.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        return core().read_model(str(path))
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot read the network: {str(error)[:300]}") from error


def compiled_of(path: Path, example: Any, threads: int) -> Prepared:
    """Return what runs an ONNX or IR file on ``example``.

    Raises:
        BackendError: OpenVINO cannot load it.
    """
    network = _compile(read(path), threads)

    def bind(given: Any) -> Run:
        request, arrays = network.create_infer_request(), tensors(given)
        names = list(request.model_inputs)
        if len(names) != len(arrays):
            raise BackendError(f"the exported network takes {len(names)} inputs, the example has {len(arrays)} tensors")
        feed = dict(enumerate(tensor.detach().cpu().numpy() for tensor in arrays))

        def run() -> list[Tensor]:
            return [torch.from_numpy(np.array(array)) for array in request.infer(feed, share_inputs=True).values()]

        return run

    return Prepared(bind, example, lambda: _kernels(network))


def _kernels(network: Any) -> Counter[str]:
    """Return the kernels of a compiled network with the precision that they run in: ``Convolution brgconv_avx512_I8``.

    A transposed or quantizing kernel that was fused into another one has no entry of its own.
    """
    found: Counter[str] = Counter()
    for node in network.get_runtime_model().get_ops():
        about = {key: str(getattr(value, "value", value)) for key, value in dict(node.get_rt_info()).items()}
        if about.get("layerType") not in _LAYOUT:
            found[f"{about.get('layerType')} {about.get('primitiveType')}"] += 1
    return found


def _compile(model: Any, threads: int, *, counters: bool = False) -> Any:
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # by default it computes in bfloat16 where the processor can
        "PERF_COUNT": counters,
    }
    try:
        return core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot compile the network: {str(error)[:300]}") from error
