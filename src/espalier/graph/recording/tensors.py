"""The tensors of a model by name: parameters, buffers and plain tensor attributes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return ``{name: tensor}`` of parameters, buffers and plain tensor attributes, tied ones by first name."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in every_name(model):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what a file holds: parameters and persistent buffers by first name."""
    hidden = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }
    known = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return {name: tensor for name, tensor in named_tensors(model).items() if name in known and name not in hidden}


def aliases(model: nn.Module) -> dict[str, str]:
    """Return ``{other name: first name}`` of every tensor that has several names."""
    first: dict[int, str] = {}
    others: dict[str, str] = {}
    for name, tensor in every_name(model):
        canonical = first.setdefault(id(tensor), name)
        if canonical != name:
            others[name] = canonical
    return others


def every_name(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield ``(name, tensor)`` for all names, tied ones several times: parameters, then buffers, then attributes."""
    parts = model.named_modules(remove_duplicate=False)
    modules = [(f"{path}." if path else "", module) for path, module in parts]
    for kind in ("_parameters", "_buffers"):
        for prefix, module in modules:
            for name, tensor in getattr(module, kind).items():
                if tensor is not None:
                    yield prefix + name, tensor
    for prefix, module in modules:
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield prefix + name, value


@contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the cyclic garbage collector: records are millions of small objects, none of them garbage yet."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
