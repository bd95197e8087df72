"""Where a network runs: PyTorch as it is, compiled, ONNX Runtime, OpenVINO, ExecuTorch; files in their formats; int8."""

from .agreement import Agreement
from .files import bytes_of, export
from .int8 import Int8
from .protocol import Backend, BackendError, ExportError, Prepared, Runner
from .registry import BACKENDS, RUNNERS, named, runner

__all__ = [
    "BACKENDS",
    "RUNNERS",
    "Agreement",
    "Backend",
    "BackendError",
    "ExportError",
    "Int8",
    "Prepared",
    "Runner",
    "bytes_of",
    "export",
    "named",
    "runner",
]
