"""The backends by name."""

from __future__ import annotations

from ..core import UnknownNameError
from .compile import Compile
from .eager import Eager
from .onnxruntime import OnnxRuntime
from .openvino import OpenVino
from .protocol import Backend, BackendError

BACKENDS: dict[str, Backend] = {one.name: one for one in (Eager(), Compile(), OnnxRuntime(), OpenVino())}


def named(name: str) -> Backend:
    """Return a backend.

    Raises:
        UnknownNameError: there is none of this name.
        BackendError: it cannot be used here; says what to install.
    """
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS)
    reason = BACKENDS[name].unavailable()
    if reason:
        raise BackendError(f"backend {name!r} cannot be used: {reason}")
    return BACKENDS[name]
