"""Where a network runs: PyTorch as it is, compiled, ONNX Runtime, OpenVINO; and files in their formats."""

from .agreement import Agreement
from .files import export
from .protocol import Backend, BackendError, ExportError
from .registry import BACKENDS, named

__all__ = ["BACKENDS", "Agreement", "Backend", "BackendError", "ExportError", "export", "named"]
