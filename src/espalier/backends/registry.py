"""The backends by name, and all runners."""

from __future__ import annotations

from typing import TypeVar

from ..core import UnknownNameError
from .compile import Compile
from .eager import Eager
from .executorch import ExecuTorch
from .int8.runners import IN_INT8
from .onnxruntime import OnnxRuntime
from .openvino import OpenVino
from .protocol import Backend, BackendError, Runner

BACKENDS: dict[str, Backend] = {one.name: one for one in (Eager(), Compile(), OnnxRuntime(), OpenVino())}
RUNNERS: dict[str, Runner] = {**BACKENDS, "executorch": ExecuTorch(), **IN_INT8}

_Any = TypeVar("_Any", bound=Runner)


def named(name: str) -> Backend:
    """Return a backend: what times layers too.

    Raises:
        UnknownNameError: there is none of this name.
        BackendError: it cannot be used here; says what to install.
    """
    return _usable(name, BACKENDS)


def runner(name: str) -> Runner:
    """Return what runs whole networks: a backend, or one that times no layers, as those in int8.

    Raises:
        UnknownNameError: there is none of this name.
        BackendError: it cannot be used here; says what to install.
    """
    return _usable(name, RUNNERS)


def _usable(name: str, known: dict[str, _Any]) -> _Any:
    if name not in known:
        raise UnknownNameError("backend", name, known)
    reason = known[name].unavailable()
    if reason:
        raise BackendError(f"backend {name!r} cannot be used: {reason}")
    return known[name]
