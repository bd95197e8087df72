"""ONNX Runtime's own quantization: QuantizeLinear and DequantizeLinear around what shall run in integers.

Activations are uint8 and weights int8, one step a channel (u8s8): the kernels of x86 processors multiply these. Without
VNNI instructions, products of full range overflow 16 bits there; weights then keep to 7 bits.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import onnx
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from ...core.processor import instructions
from ..onnxruntime import feed_of
from ..protocol import ExportError

_DYNAMIC = ["MatMul", "Gemm", "Attention", "LSTM"]  # ConvInteger is slower than a convolution in float


class _Reader(CalibrationDataReader):
    """Gives the runtime one input after another."""

    def __init__(self, path: Path, inputs: Iterable[Any]) -> None:
        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._feeds = (feed_of(session, one) for one in inputs)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def quantize(source: Path, target: Path, scheme: Literal["static", "dynamic"], calibration: Iterable[Any]) -> None:
    """Read a network in float32 and write it in int8.

    Raises:
        ExportError: the runtime's tools cannot quantize it, or nothing in it.
    """
    reduced = not any("VNNI" in name or "AMX" in name for name in instructions())
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        try:
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            if scheme == "dynamic":
                quantize_dynamic(
                    ready, target, op_types_to_quantize=_DYNAMIC, per_channel=True, reduce_range=reduced,
                    weight_type=QuantType.QInt8,
                )  # fmt: skip
            else:
                quantize_static(
                    ready, target, _Reader(ready, calibration), quant_format=QuantFormat.QDQ, per_channel=True,
                    reduce_range=reduced, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    calibrate_method=CalibrationMethod.MinMax,
                )  # fmt: skip
        except Exception as error:  # its tools raise whatever their passes do
            first = str(error).strip().split("\n")[0]
            raise ExportError(f"ONNX Runtime cannot quantize the network: {first[:300]}") from error
    refuse_floats(target)


def refuse_floats(path: Path) -> None:
    """Refuse a file without one tensor in int8.

    Raises:
        ExportError: there is none.
    """
    held = onnx.load(str(path)).graph.initializer
    if not any(one.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and one.dims for one in held):
        raise ExportError("nothing in the network was quantized: it has no convolution or linear layer of constants")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence advice to people who call these tools by hand."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
