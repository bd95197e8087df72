"""int8 for PyTorch's own compiler: torchao's x86 quantizer, whose patterns inductor turns into oneDNN's kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from torch import nn
from torch.fx import GraphModule

from ..onnx_file import missing
from ..protocol import ExportError
from .pt2e import converted, quiet


def unavailable() -> str | None:
    """Return what to install, or None."""
    return missing("torchao", extra="ao")


def quantized(
    model: nn.Module, example: Any, scheme: Literal["static", "dynamic"], calibration: Iterable[Any]
) -> GraphModule:
    """Return the network with weights in int8 and explicit quantization of activations.

    Raises:
        ExportError: torchao is not installed, or cannot quantize this network.
    """
    absent = unavailable()
    if absent:
        raise ExportError(absent)
    with quiet():
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        config = x86.get_default_x86_inductor_quantization_config(is_dynamic=scheme == "dynamic")
        if scheme == "dynamic":
            quantizer = x86.X86InductorQuantizer().set_module_type_qconfig(nn.Linear, config)
        else:
            quantizer = x86.X86InductorQuantizer().set_global(config)
    return converted(model, example, quantizer, calibration)
