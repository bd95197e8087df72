"""torchao's quantization of an exported program (pt2e): observe on calibration inputs, then convert.

export ──▶ annotate (a quantizer per kind of hardware) ──▶ observe ──▶ convert ──▶ program with int8 weights
"""

from __future__ import annotations

import copy
import logging
import operator
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ..protocol import ExportError, call

_ATEN = torch.ops.aten
# What the x86 quantizer fuses with the layer before it, by operator. It asks for the module that an operator came from,
# and takes two uses of one module (a block's only ReLU) for one, so every node says for itself what it is.
_SOURCES: dict[Any, Any] = {
    _ATEN.conv1d.default: nn.Conv1d,
    _ATEN.conv2d.default: nn.Conv2d,
    _ATEN.linear.default: nn.Linear,
    _ATEN.add.Tensor: operator.add,
    _ATEN.add_.Tensor: operator.add,
    _ATEN.relu.default: nn.ReLU,
    _ATEN.relu_.default: nn.ReLU,
    _ATEN.hardtanh.default: nn.Hardtanh,
    _ATEN.hardtanh_.default: nn.Hardtanh,
    _ATEN.hardswish.default: nn.Hardswish,
    _ATEN.hardswish_.default: nn.Hardswish,
    _ATEN.silu.default: nn.SiLU,
    _ATEN.silu_.default: nn.SiLU,
    _ATEN.leaky_relu.default: nn.LeakyReLU,
    _ATEN.tanh.default: nn.Tanh,
    _ATEN.gelu.default: nn.GELU,
}


def program_of(model: nn.Module, example: Any) -> torch.export.ExportedProgram:
    """Export a copy of a model in eval mode.

    Raises:
        ExportError: the exporter cannot.
    """
    positional, keywords = ((), dict(example)) if isinstance(example, Mapping) else (_tuple(example), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(copy.deepcopy(model).eval(), positional, keywords)
        except Exception as error:  # the exporter raises whatever its tracer does
            raise ExportError(f"torch.export cannot write {type(model).__name__}: {str(error)[:300]}") from error


def converted(model: nn.Module, example: Any, quantizer: Any, calibration: Iterable[Any]) -> GraphModule:
    """Return the exported network with its weights in int8 and no copy of them in float32.

    Raises:
        ExportError: torchao cannot quantize it, or nothing in it.
    """
    graph_module: Any = program_of(model, example).module()
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        _say_sources(graph_module)
        try:
            observed = prepare_pt2e(graph_module, quantizer)
            with torch.no_grad():
                for one in calibration:
                    call(observed, one)
            result = convert_pt2e(observed)
        except Exception as error:  # its passes raise whatever they do
            raise ExportError(f"torchao cannot quantize {type(model).__name__}: {error!r:.300}") from error
    strip_(result)
    if not any(tensor.dtype == torch.int8 for tensor in result.state_dict().values()):
        raise ExportError("nothing in the network was quantized: it has no layer that its quantizer knows")
    return result


def strip_(module: GraphModule) -> None:
    """Remove what the graph no longer reads: the float32 weights whose int8 copies took their place."""
    module.graph.eliminate_dead_code()
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    held = [name for name, _ in (*module.named_parameters(), *module.named_buffers())]
    for name in held:
        if name not in read:
            place, _, last = name.rpartition(".")
            delattr(module.get_submodule(place), last)
    module.recompile()


def _say_sources(module: GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _SOURCES:
            node.meta["source_fn_stack"] = [(node.name, _SOURCES[node.target])]


def _tuple(example: Any) -> tuple:
    return example if isinstance(example, tuple) else (example,)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torchao's remarks, as it is imported, about kernels for other machines."""
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree")]
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
