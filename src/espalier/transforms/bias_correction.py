"""Bias correction: what quantization adds to the mean of a layer's output, each channel, is taken off its bias.

    c = argmin  sum over samples |y - (y_q + c)|^2  =  mean(y) - mean(y_q)

Layer by layer in one pass: each is given what the corrected layers before it make, so that it mends their rest too.

*Source*: Nagel et al., Data-Free Quantization, ICCV 2019, arXiv:1906.04721, section 4.2, in the empirical form of
appendix D.
*Differs*: (1) the correction of a layer without a bias goes into the batch norm that follows; (2) layers that run
several times, or have neither, are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.recording.capture import run_model
from ..graph.recording.running import on_device
from ..graph.recording.tensors import aliases
from .layers import Layer

_NUMBERS, _SAMPLES = 1 << 19, 32  # of the inputs that a layer's mean is over: so many numbers, or so many samples


@torch.no_grad()
def correct_biases_(
    model: nn.Module, dense: nn.Module, layers: Sequence[Layer], norms: Mapping[str, str], batches: Sequence[Any]
) -> dict[str, float]:
    """Correct the biases of a quantized model, in place.

    Args:
        model: quantized: its weights on their grids, its inputs put on theirs.
        dense: the same before.
        layers: that are quantized.
        norms: ``{layer: batch norm that alone reads its output}``.
        batches: of inputs; a layer's mean is over all of those that are one tensor.

    Returns:
        ``{layer: the largest change of a channel}``.
    """
    inputs = together(batches)
    places = {one.path: place for one in layers if (place := _place(model, one, norms)) is not None}
    own = [one for one in layers if one.path in places and one.out_axis is not None]
    wanted: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def note(layer: Layer, output: Tensor) -> None:
        calls[layer.path] = calls.get(layer.path, 0) + 1
        wanted[layer.path] = _means(output, layer)

    _run(dense, own, inputs, note)
    changed: dict[str, float] = {}

    def mend(layer: Layer, output: Tensor) -> Tensor | None:
        if calls[layer.path] != 1:
            return None
        shift = wanted[layer.path] - _means(output, layer)
        tensor, sign = places[layer.path]
        tensor += sign * shift.to(tensor.dtype)
        changed[layer.path] = float(shift.abs().max())
        if sign < 0:
            return None  # the norm that follows adds it
        assert layer.out_axis is not None
        size = [-1 if d == layer.out_axis % output.dim() else 1 for d in range(output.dim())]
        return output + shift.to(output.dtype).reshape(size)

    _run(model, own, inputs, mend)
    return changed


def together(batches: Sequence[Any]) -> Any:
    """Return as many batches as one as memory should hold; the first where they are no tensors."""
    if not all(isinstance(one, Tensor) for one in batches):
        return batches[0]
    whole = torch.cat(list(batches))
    return whole[: max(_SAMPLES, _NUMBERS // max(1, whole[0].numel()))]


def _place(model: nn.Module, layer: Layer, norms: Mapping[str, str]) -> tuple[Tensor, int] | None:
    """Return the tensor that a correction is added to, and its sign; None where there is none."""
    bias = model.get_submodule(layer.path)._parameters.get("bias")
    first = aliases(model)
    shared = {*first, *first.values()}
    if bias is not None:
        return None if f"{layer.path}.bias" in shared else (bias.data, 1)
    norm = norms.get(layer.path)
    return None if norm is None else (model.get_submodule(norm).get_buffer("running_mean"), -1)


def _means(output: Tensor, layer: Layer) -> Tensor:
    assert layer.out_axis is not None
    return output.mean([d for d in range(output.dim()) if d != layer.out_axis % output.dim()])


def _run(model: nn.Module, layers: Sequence[Layer], inputs: Any, act: Any) -> None:
    handles = [
        model.get_submodule(one.path).register_forward_hook(lambda module, args, output, one=one: act(one, output))
        for one in layers
    ]
    try:
        run_model(model, on_device(inputs, model), None)
    finally:
        for handle in handles:
            handle.remove()
