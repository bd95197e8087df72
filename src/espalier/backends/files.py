"""Export: a network in another format, checked against PyTorch before the file has its name."""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core import FileError
from ..core.atomic import replacing
from . import onnxruntime, openvino
from .agreement import Agreement, check, probe
from .onnx_file import write_onnx
from .protocol import ExportError, Run, call, tensors


def export(model: nn.Module, example: Any, path: str | Path) -> Agreement:
    """Write ``model`` in eval mode in the format that the suffix names, run what was written, and compare.

        .onnx   ONNX, by PyTorch's dynamo exporter; run by ONNX Runtime
        .xml    OpenVINO IR, with its weights beside it as .bin; run by OpenVINO
        .pt2    torch.export's own format

    The file appears under its name only when it computes what the model does on inputs of noise.

    Args:
        model: any network; it is untouched.
        example: a tensor, a tuple of arguments, or a mapping of keywords; its shapes are the exported ones.
        path: with one of the suffixes above.

    Raises:
        ExportError: an unknown suffix, a package that is missing, a network that the format cannot hold, or a result
            that differs by more than rounding.
        FileError: the place cannot be written.
    """
    target = Path(path)
    writer = WRITERS.get(target.suffix)
    if writer is None:
        raise ExportError(f"{target.name}: the suffix says the format, one of {', '.join(WRITERS)}")
    inputs = probe(example)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"model{target.suffix}"
        found = check(model, inputs, writer(model, inputs, made), target.name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for part in sorted(Path(folder).glob("model.*"), key=lambda one: one.suffix == target.suffix):
                with replacing(target.with_suffix(part.suffix)) as temporary:  # the named file last: it is the promise
                    shutil.copyfile(part, temporary)
        except OSError as error:
            raise FileError(f"cannot write {target}: {error}") from error
    return found


def _onnx(model: nn.Module, example: Any, path: Path) -> Run:
    write_onnx(model, example, path)
    return onnxruntime.session_of(path, example, threads=torch.get_num_threads())


def _openvino(model: nn.Module, example: Any, path: Path) -> Run:
    absent = openvino.OpenVino().unavailable()
    if absent:
        raise ExportError(absent)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.onnx"
        write_onnx(model, example, source)
        openvino.runtime().save_model(openvino.read(source), str(path), compress_to_fp16=False)
    return openvino.compiled_of(path, example, threads=torch.get_num_threads())


def _pt2(model: nn.Module, example: Any, path: Path) -> Run:
    ready = copy.deepcopy(model).eval()
    positional, keywords = ((), dict(example)) if isinstance(example, Mapping) else (_tuple(example), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.export.save(torch.export.export(ready, positional, keywords), path)
            program = torch.export.load(path).module()
        except Exception as error:  # the exporter raises whatever its tracer does
            raise ExportError(f"torch.export cannot write {type(model).__name__}: {str(error)[:300]}") from error

    def run() -> list[Tensor]:
        with torch.no_grad():
            return tensors(call(program, example))

    return run


def _tuple(example: Any) -> tuple:
    return example if isinstance(example, tuple) else (example,)


WRITERS: dict[str, Callable[[nn.Module, Any, Path], Run]] = {".onnx": _onnx, ".xml": _openvino, ".pt2": _pt2}
