"""A small network with masks, and what they hide of it."""

from __future__ import annotations

from torch import Tensor, nn

import espalier as es
from espalier.graph.masks import masks_of
from espalier.graph.recording.tensors import named_tensors

from .lessons import images


def sparse(share: float = 0.7) -> nn.Module:
    return es.sparsify(images(), share)


def hidden(model: nn.Module) -> dict[str, Tensor]:
    tensors = named_tensors(model)
    return {name: tensors[name].detach()[~kept] for name, kept in masks_of(model).kept.items()}
