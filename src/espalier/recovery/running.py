"""How models run while they are looked at: in eval mode, on their own device, and as they were afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..graph.skeleton import map_tensors


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models in eval mode, and every module's own mode back afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def on_device(inputs: Any, model: nn.Module) -> Any:
    """Return a batch's inputs (a tensor, a tuple or a dict) where the model is."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    return map_tensors(inputs, lambda tensor: tensor.to(device))
