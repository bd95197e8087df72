"""State: what a forward pass may change in a model (running averages, counters, caches), put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Give a model its buffers, plain tensor attributes and other attributes back as they were, whatever ran inside.

    Every comparison of two passes must start from equal states: a network may write into a running average even in eval
    mode. Containers that are changed in place, and parameters that a pass writes into, stay changed.
    """
    modules = list(model.modules())
    before = [(module, dict(vars(module)), dict(module._buffers)) for module in modules]
    found = (value for _, own, buffers in before for value in (*own.values(), *buffers.values()))
    tensors = {id(t): t for t in found if isinstance(t, Tensor) and not isinstance(t, nn.Parameter)}
    values = {key: tensor.detach().clone() for key, tensor in tensors.items()}
    try:
        yield
    finally:
        for module, own, buffers in before:
            vars(module).clear()
            vars(module).update(own)
            module._buffers.clear()
            module._buffers.update(buffers)
        for key, tensor in tensors.items():
            tensor.data = values[key]
