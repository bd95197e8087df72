"""The step that writes the result in another format."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Step

ExportFormat = Literal["onnx", "openvino", "pt2", "pte"]
ExportScheme = Literal["auto", "static", "dynamic"]

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "pte": ".pte"}
LEAST_SQNR_DB = 15.0


def file_name(to: str, int8: bool) -> str:
    """Return the name that an export has in the run folder."""
    return f"model{'-int8' * int8}{SUFFIXES[to]}"


class Export(Step):
    """Write the network in another format into the run folder; it is run and compared with PyTorch at once."""

    kind: Literal["export"] = "export"
    to: ExportFormat = "onnx"
    """ONNX, OpenVINO IR, torch.export's own format (pt2) or ExecuTorch's (pte)"""
    int8: bool = False
    """weights and activations in eight bits, calibrated on training inputs"""
    scheme: ExportScheme = "auto"
    """of int8: ranges of activations fixed by calibration (static), or found anew in every pass (dynamic); auto is
    dynamic for networks with attention or recurrent layers, static for others"""
    samples: int = Field(default=128, ge=1)
    """of int8: training inputs to calibrate on"""
    least_sqnr_db: float = LEAST_SQNR_DB
    """of int8: signal to noise against PyTorch in decibels; the run fails where the result has less"""
    batch: int = Field(default=1, ge=1)
    """inputs of a forward pass; the exported network takes as many"""
