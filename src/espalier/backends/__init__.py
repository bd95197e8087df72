"""Where a network runs (PyTorch, compiled, ONNX Runtime, OpenVINO, ExecuTorch), files in their formats, and int8."""

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
