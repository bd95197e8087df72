"""Networks whose binary and ternary layers stay packed in memory, and compute with words where they read signs."""

from __future__ import annotations

import copy

from torch import nn

from ..core import ModelError
from ..graph.grids import Grids, Sign, grids_of
from ..graph.input_hooks import InputHook, hook_of
from ..graph.kinds import check_model
from .packed_layers import PopcountConv2d, PopcountLinear, UnpackedForCall
from .packed_weights import FewValues, few_values

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def packed(model: nn.Module, *, exact: bool = True) -> nn.Module:
    """Return a network for inference on the processor, whose layers of two to four values a filter are packed.

    A layer that reads signs (``Sign`` of ``graph.grids``) and has weights -s and +s computes with XNOR and popcount, 64
    weights a word. Others are unpacked for every call: that saves memory and no time. Either way the outputs are those
    of ``model``, bit for bit. Weights take 1/32 of their bytes, those of three values 1/16.

    Floating point rounds a sum in an order of its own where s has many bits (``XnorNet`` takes few) or the layer has a
    bias, which comes first for some kernels and last for others. Such layers are unpacked, unless ``exact`` is False.

    >>> import torch
    >>> layer = nn.Linear(128, 8)
    >>> _ = layer.weight.data.sign_()
    >>> x = torch.randn(3, 128)
    >>> bool((packed(layer)(x) == layer(x)).all())
    True

    Args:
        model: in float32 on the CPU; untouched.
        exact: whether every bit is to be the same; else those layers compute with words too, and differ by roundings.

    Raises:
        KindError: ``model`` is no module.
        ModelError: no layer has so few values.
    """
    check_model("packed", model)
    result = copy.deepcopy(model).eval().requires_grad_(False)
    made = {}
    for path, layer in list(result.named_modules()):
        weights = few_values(layer.get_parameter("weight")) if type(layer) in _KINDS else None
        if weights is not None:
            made[path] = _packed(layer, weights, exact)
    if not made:
        raise ModelError("no linear layer or convolution of this network has two to four values a filter: binarise it")
    for path, layer in made.items():
        parent, _, name = path.rpartition(".")
        if not path:
            return layer
        setattr(result.get_submodule(parent), name, layer)
    return _still_carrying(result, made)


def _packed(layer: nn.Module, weights: FewValues, exact: bool) -> nn.Module:
    """Return a layer in its packed form."""
    found = hook_of(layer)
    hook = None if found is None else InputHook(found.made)
    scales = weights.scales
    rounded = not weights.is_exact or layer.bias is not None
    if hook is not None and isinstance(hook.made, Sign) and scales is not None and not (exact and rounded):
        if isinstance(layer, nn.Linear):
            return PopcountLinear(layer, weights, scales, hook)
        if isinstance(layer, nn.Conv2d) and _is_plain(layer):
            return PopcountConv2d(layer, weights, scales, hook)
    return UnpackedForCall(layer, weights, hook)


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one of all channels, padded with zeros by so many."""
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _still_carrying(model: nn.Module, made: dict[str, nn.Module]) -> nn.Module:
    """Let a network carry the grids of the layers that are what they were; the packed ones have theirs inside."""
    grids = grids_of(model)
    if grids:
        inputs = {path: one for path, one in grids.inputs.items() if path not in made}
        weights = {name: one for name, one in grids.weights.items() if name.rpartition(".")[0] not in made}
        model.espalier_grids = Grids(inputs, weights)  # type: ignore[assignment]
    return model
