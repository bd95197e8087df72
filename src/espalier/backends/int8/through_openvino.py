"""int8 for OpenVINO: NNCF's post-training quantization, imported without its telemetry."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

from .. import openvino
from ..onnx_file import missing
from ..protocol import ExportError, tensors


def unavailable() -> str | None:
    """Return what to install, or None."""
    return openvino.OpenVino().unavailable() or missing("nncf", extra="openvino")


def quantize(source: Path, target: Path, scheme: Literal["static", "dynamic"], calibration: Sequence[Any]) -> None:
    """Read an ONNX file in float32 and write OpenVINO's IR in int8.

    NNCF fixes all ranges beforehand; where the scheme is dynamic it smooths outliers into the weights first and keeps
    what attention cannot spare in float (its model type "transformer").

    Raises:
        ExportError: NNCF is not installed, or cannot quantize the network.
    """
    absent = unavailable()
    if absent:
        raise ExportError(absent)
    openvino.runtime()
    nncf = nncf_module()
    network = openvino.read(source)
    names = [one.get_any_name() for one in network.inputs]
    feeds = [dict(zip(names, (t.numpy() for t in tensors(one)), strict=True)) for one in calibration]
    kind = nncf.ModelType.TRANSFORMER if scheme == "dynamic" else None
    try:
        with redirect_stdout(io.StringIO()):  # its progress bars
            small = nncf.quantize(network, nncf.Dataset(feeds), subset_size=len(feeds), model_type=kind)
    except Exception as error:  # its passes raise whatever they do
        raise ExportError(f"NNCF cannot quantize the network: {error!r:.300}") from error
    openvino.runtime().save_model(small, str(target), compress_to_fp16=False)


def nncf_module() -> Any:
    """Import NNCF without its telemetry, and have it say errors only."""
    nncf = openvino.without_telemetry("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf
