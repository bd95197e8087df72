"""ONNX files, written by PyTorch's dynamo exporter."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .protocol import ExportError

_LARGEST_BYTES = 2**31 - 2**24  # protobuf's limit, less room for the graph
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def missing(*packages: str, extra: str) -> str | None:
    """Return which packages are not installed and which extra brings them, or None."""
    absent = [name for name in packages if find_spec(name) is None]
    if not absent:
        return None
    return f"{', '.join(absent)} not installed: pip install 'espalier[{extra}]'"


def write_onnx(model: nn.Module, example: Any, path: Path) -> None:
    """Write ``model`` in eval mode, with the shapes of ``example``, as one ONNX file. It is not checked here.

    Raises:
        ExportError: the exporter is not installed, or cannot write this model.
    """
    absent = missing(*_NEEDED, extra="onnx")
    if absent:
        raise ExportError(absent)
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if size > _LARGEST_BYTES:
        raise ExportError(f"the model has {size:,} bytes of tensors; an ONNX file holds at most 2 GB")
    ready = copy.deepcopy(model).eval()
    positional, keywords = _arguments(example)
    with _quiet():
        try:
            program = torch.onnx.export(ready, positional, kwargs=keywords, dynamo=True, verbose=False)
            assert program is not None
            program.save(path)
        except Exception as error:  # the exporter raises its own types and those of every pass below it
            first = str(error).strip().split("\n")[0]
            raise ExportError(
                f"the ONNX exporter cannot write {type(model).__name__}: {first[:300]} ({type(error).__name__})"
            ) from error


def _arguments(example: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks about its own insides; what fails raises."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
