"""Folding: batch normalisation into the convolution or linear layer before it; the network computes the same.

    y = gamma (W x + b - mean) / s + beta,   s = sqrt(var + eps)     becomes    W' = gamma W / s  a channel, and
    a bias  b' = gamma (b - mean) / s + beta  where the layer has one, or a norm that only shifts where it has none

The norm stays in its place as a module whose factor is one, so that the network keeps its class, its tensors' names and
shapes, and its files.

*Source*: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.2, equation 14.
*Differs*: (1) the shift stays in the norm where the layer before has no bias.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..graph import Graph
from ..graph.recording.record import Op, Record
from ..graph.recording.tensors import aliases

_BEFORE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def norms_after(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Return ``{layer: batch norm}`` of layers whose output one batch norm reads, and nothing else.

    Args:
        model: that ``graph`` was traced from, or a copy of it.
        graph: from ``trace``.
    """
    record, modules = graph.records[0], dict(model.named_modules())
    tied = set(aliases(model).values())
    found = list(_pairs(record, modules))
    layers, norms = [layer for layer, _ in found], [norm for _, norm in found]
    runs = [op.scope for op in record.ops if op.name == "batch_norm"]
    return {
        layer: norm
        for layer, norm in found
        if layers.count(layer) == norms.count(norm) == runs.count(norm) == 1 and f"{layer}.weight" not in tied
    }


def fold_(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Fold batch norms into the layers before them, in place, and return which: ``{layer: batch norm}``.

    Exact in eval mode, up to rounding; a norm in train mode would take its batch's statistics again.

    Args:
        model: that ``graph`` was traced from, or a copy of it.
        graph: from ``trace``.
    """
    pairs = norms_after(model, graph)
    for layer, norm in pairs.items():
        _fold(model.get_submodule(layer), model.get_submodule(norm))
    return pairs


def _pairs(record: Record, modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    made = {out: op for op in record.ops for out in op.outs if out is not None}
    readers: dict[int, int] = {}
    for op in record.ops:
        for value in op.refs():
            readers[value] = readers.get(value, 0) + 1
    for op in record.ops:
        norm, read = modules.get(op.scope), op.refs()[:1]
        if op.name != "batch_norm" or not _has_statistics(norm) or not read or read[0] not in made:
            continue
        before = made[read[0]]
        if readers[read[0]] == 1 and read[0] not in record.outputs and _is_layer(before, record, modules):
            yield before.scope, op.scope


def _has_statistics(norm: nn.Module | None) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None


def _is_layer(op: Op, record: Record, modules: dict[str, nn.Module]) -> bool:
    """Whether an operator is what a layer is there for, and the whole of it."""
    layer = modules.get(op.scope)
    if not isinstance(layer, _BEFORE) or not isinstance(layer._parameters.get("weight"), nn.Parameter):
        return False
    own = [one for one in record.ops if one.scope == op.scope and one.name == op.name]
    return len(own) == 1 and op.name in ("aten.convolution", "aten.addmm", "aten.mm")


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.Module) -> None:
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    weight, bias = layer.get_parameter("weight"), layer._parameters.get("bias")
    factor = norm.running_var.double().add(norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
        norm.weight.fill_(1)
    weight.copy_(weight.double() * factor.reshape(-1, *[1] * (weight.dim() - 1)))
    if bias is None:
        norm.running_mean.mul_(factor)
    else:
        shift = 0 if norm.bias is None else norm.bias.double()
        bias.copy_((bias.double() - norm.running_mean.double()) * factor + shift)
        norm.running_mean.zero_()
        if norm.bias is not None:
            norm.bias.zero_()
    norm.running_var.fill_(1 - norm.eps)
