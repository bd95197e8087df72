"""How models run while they are looked at: in eval mode, on their own device, and as they were afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .skeleton import map_tensors


@contextmanager
def own_modes(*models: nn.Module) -> Iterator[None]:
    """Give every module its own mode back afterwards: a frozen batch norm stays frozen."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models in eval mode, and every module's own mode back afterwards."""
    with own_modes(*models):
        for model in models:
            model.eval()
        yield


def forget(model: nn.Module) -> nn.Module:
    """Let a model drop what it computed from its old weights: such caches are cleared on a change to train mode."""
    with own_modes(model):
        model.train()
    return model


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters are; the CPU when there are none."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def on_device(inputs: Any, model: nn.Module) -> Any:
    """Return a batch's inputs or targets (a tensor, or containers of tensors) where the model is."""
    device = device_of(model)
    return map_tensors(inputs, lambda tensor: tensor.to(device))


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads, or with as many as there are for 0: the last bits of sums depend on it."""
    before = torch.get_num_threads()
    if threads in (0, before):
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
