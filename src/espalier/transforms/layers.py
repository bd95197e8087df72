"""Which weights quantization is for, and where their channels are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..core import UnknownNameError
from ..graph.recording.tensors import aliases


@dataclass(frozen=True)
class Layer:
    """A module with weights for a grid.

    Attributes:
        path: of the module; what patterns match.
        weight: the tensor's first name.
        axis: dimension of the weight whose positions are the output's channels.
        out_axis: dimension of the output that has these; None where the module's input is not put on a grid.
    """

    path: str
    weight: str
    axis: int
    out_axis: int | None


def layers(model: nn.Module) -> list[Layer]:
    """Return the layers of a model whose weights quantization is for, in the model's order.

    Convolutions and linear layers, with their inputs; the weights of embeddings, recurrent layers and PyTorch's own
    attention, whose inputs are left alone. A weight that several modules share appears once for each.
    """
    first, found = aliases(model), []
    for path, module in model.named_modules():
        for name, axis, out_axis in _weights(module):
            whole = f"{path}.{name}" if path else name
            found.append(Layer(path, first.get(whole, whole), axis, out_axis))
    return found


def chosen(model: nn.Module, keep: Collection[str]) -> list[Layer]:
    """Return the layers without those that stay as they are.

    Args:
        model: any module.
        keep: names of modules or tensors; * and ? match.

    Raises:
        UnknownNameError: a pattern matches nothing.
    """
    kept = {one.weight for pattern in keep for one in named(model, pattern)}
    return [one for one in layers(model) if one.weight not in kept]


def named(model: nn.Module, pattern: str) -> list[Layer]:
    """Return the layers that a pattern names.

    Raises:
        UnknownNameError: it matches nothing.
    """
    every = layers(model)
    found = [one for one in every if matches(one, pattern)]
    if not found:
        raise UnknownNameError("layer", pattern, {one.path for one in every})
    return found


def matches(layer: Layer, pattern: str) -> bool:
    """Whether a pattern names a layer, or its weight."""
    return fnmatchcase(layer.path, pattern) or fnmatchcase(layer.weight, pattern)


def _weights(module: nn.Module) -> Iterator[tuple[str, int, int | None]]:
    """Yield (name of the parameter, dimension of its channels, dimension of the output's)."""
    own = {name for name, tensor in module._parameters.items() if tensor is not None and tensor.is_floating_point()}
    if isinstance(module, _ConvNd) and "weight" in own:
        turned = isinstance(module, _ConvTransposeNd)
        if not turned or module.groups == 1:  # in groups, a channel's weights are not a slice of the tensor
            yield "weight", int(turned), 1
    elif isinstance(module, nn.Linear) and "weight" in own:
        yield "weight", 0, -1
    elif type(module).__name__ == "Conv1D" and "weight" in own and module._parameters["weight"].dim() == 2:  # type: ignore[union-attr]
        yield "weight", 1, -1  # of transformers: a linear layer with the weight transposed
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag) and "weight" in own:
        yield "weight", 0, None
    elif isinstance(module, nn.MultiheadAttention):
        yield from ((name, 0, None) for name in sorted(own) if name.endswith("proj_weight"))
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase):
        yield from ((name, 0, None) for name in sorted(own) if name.startswith("weight"))
