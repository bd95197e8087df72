"""Export: a network in another format, checked against PyTorch before the file has its name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core import FileError
from ..core.atomic import replacing
from . import executorch, onnxruntime, openvino
from .agreement import Agreement, check, check_int8, probe
from .int8 import inductor, through_openvino
from .int8.grids import carries_grids, explicit
from .int8.pt2e import program_of
from .int8.scheme import scheme_of
from .int8.settings import Int8, batch_of, pieces, split
from .int8.worst import worst_words
from .onnx_file import write_onnx
from .protocol import ExportError, Prepared, Run, call, tensors

# scheme and calibration inputs
_InInt8 = tuple[Literal["static", "dynamic"], list[Any]]
_COMPARED = 4  # of the user's inputs, beside noise, where nothing is calibrated


def export(model: nn.Module, example: Any, path: str | Path, *, int8: Int8 | None = None) -> Agreement:
    """Write ``model`` in eval mode in the format that the suffix names, run what was written, and compare.

        .onnx   ONNX, by PyTorch's dynamo exporter; run by ONNX Runtime
        .xml    OpenVINO IR, with its weights beside it as .bin; run by OpenVINO
        .pt2    torch.export's own format
        .pte    ExecuTorch's program, its layers by XNNPACK where that knows them; run by ExecuTorch

    The file appears under its name only when it computes what the model does: in float32 on inputs of noise and within
    rounding, in int8 on inputs that were not calibrated on and with the decibels that ``int8`` asks for.

    Args:
        model: any network; it is untouched.
        example: a tensor, a tuple of arguments, or a mapping of keywords; its shapes are the exported ones.
        path: with one of the suffixes above.
        int8: weights and activations in eight bits, calibrated on inputs of the user's; float32 when None. A model that
            carries grids (``es.quantize``) is written with these, and nothing is calibrated.

    Raises:
        ExportError: an unknown suffix, a package that is missing, a network that the format cannot hold, or a result
            that differs by more than rounding; in int8, by more than was allowed, with the layer that loses most.
        FileError: the place cannot be written.
    """
    target = Path(path)
    writer = WRITERS.get(target.suffix)
    if writer is None:
        raise ExportError(f"{target.name}: the suffix says the format, one of {', '.join(WRITERS)}")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"model{target.suffix}"
        if int8 is None:
            inputs = probe(example)
            found = check(model, inputs, writer(model, inputs, made, None), target.name)
        else:
            found = _in_int8(model, example, made, int8, target.name)
        _placed(Path(folder), target)
    return found


def _in_int8(model: nn.Module, example: Any, made: Path, int8: Int8, what: str) -> Agreement:
    if carries_grids(model):
        return _of_its_grids(model, example, made, int8, what)
    calibration, held_out = split(int8, example)
    how = (scheme_of(model, calibration[0], int8), calibration)
    run = WRITERS[made.suffix](model, calibration[0], made, how)
    fixed = calibration if how[0] == "static" else []
    return check_int8(
        model, held_out, run, least_db=int8.least_sqnr_db, what=what, blame=lambda: worst_words(model, held_out, fixed)
    )


def _of_its_grids(model: nn.Module, example: Any, made: Path, int8: Int8, what: str) -> Agreement:
    inputs = [probe(example), *islice(pieces(int8.batches, batch_of(example)), _COMPARED)]
    run = WRITERS[made.suffix](explicit(model), inputs[0], made, None)
    return check_int8(
        model, inputs, run, least_db=int8.least_sqnr_db, what=what, blame=lambda: "It was written with its own grids."
    )


def unavailable(suffix: str, *, int8: bool) -> str | None:
    """Return what to install before a format can be written, or None."""
    if suffix == ".xml":
        return through_openvino.unavailable() if int8 else openvino.OpenVino().unavailable()
    if suffix == ".pte":
        return executorch.unavailable()
    if suffix == ".pt2":
        return inductor.unavailable() if int8 else None
    return onnxruntime.OnnxRuntime().unavailable()


def bytes_of(path: Path) -> int:
    """Return the bytes of an export as the file system has them: of OpenVINO's, the weights beside it too."""
    parts = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(part.stat().st_size for part in parts)


def _placed(folder: Path, target: Path) -> None:
    """Give what was written its name."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for part in sorted(folder.glob("model.*"), key=lambda one: one.suffix == target.suffix):
            with replacing(target.with_suffix(part.suffix)) as temporary:  # the named file last: it is the promise
                shutil.copyfile(part, temporary)
    except OSError as error:
        raise FileError(f"cannot write {target}: {error}") from error


def _onnx(model: nn.Module, example: Any, path: Path, int8: _InInt8 | None) -> Prepared:
    if int8 is None:
        write_onnx(model, example, path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "float32.onnx"
            write_onnx(model, example, source)
            from .int8.through_onnx import quantize  # imports what the line above has found installed

            quantize(source, path, *int8)
    return onnxruntime.session_of(path, example, threads=torch.get_num_threads())


def _openvino(model: nn.Module, example: Any, path: Path, int8: _InInt8 | None) -> Prepared:
    absent = openvino.OpenVino().unavailable()
    if absent:
        raise ExportError(absent)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.onnx"
        write_onnx(model, example, source)
        if int8 is None:
            openvino.runtime().save_model(openvino.read(source), str(path), compress_to_fp16=False)
        else:
            through_openvino.quantize(source, path, *int8)
    return openvino.compiled_of(path, example, threads=torch.get_num_threads())


def _pt2(model: nn.Module, example: Any, path: Path, int8: _InInt8 | None) -> Prepared:
    ready = model if int8 is None else inductor.quantized(model, example, *int8)
    program = program_of(ready, example)
    try:
        torch.export.save(program, path)
        network = torch.export.load(path).module()
    except Exception as error:  # the format's writer raises whatever its tables miss
        raise ExportError(f"torch.export cannot write {type(model).__name__}: {str(error)[:300]}") from error

    def bind(given: Any) -> Run:
        def run() -> list[Tensor]:
            with torch.no_grad():
                return tensors(call(network, given))

        return run

    return Prepared(bind, example)


def _pte(model: nn.Module, example: Any, path: Path, int8: _InInt8 | None) -> Prepared:
    executorch.write_pte(model, example, path, int8=int8)
    return executorch.method_of(path, example, threads=torch.get_num_threads())


WRITERS: dict[str, Callable[[nn.Module, Any, Path, _InInt8 | None], Prepared]] = {
    ".onnx": _onnx,
    ".xml": _openvino,
    ".pt2": _pt2,
    ".pte": _pte,
}
