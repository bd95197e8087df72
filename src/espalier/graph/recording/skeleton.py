"""The copy that is traced: the model without its data, its public ints replaced by sizes that remember their place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...core import ModelError, cause
from ..input_hooks import set_aside_
from .copying import deep_copy
from .sizes import Size
from .tensors import named_tensors


def map_tensors(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return nested containers with every tensor changed."""
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return type(tree)({k: map_tensors(v, change) for k, v in tree.items()})
    if isinstance(tree, list | tuple):
        items = [map_tensors(v, change) for v in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return tree


class _CopyTensors(TorchFunctionMode):
    """Deep-copy tensors that are neither parameters nor buffers, detached, onto the device."""

    def __init__(self, device: str | None) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__name__", "") != "__deepcopy__":
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().to(self.device) if self.device else tensor.detach().clone()
        return memo[id(tensor)]


def skeleton(model: nn.Module, device: str | None) -> nn.Module:
    """Copy a model: on ``device`` without its data, or (None) with shared parameter data and cloned buffers.

    Its inputs are not quantized.

    Raises:
        ModelError: something in it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for p in model.parameters():
        data = torch.empty_like(p, device=device) if device else p.detach()
        memo[id(p)] = nn.Parameter(data, requires_grad=p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = b.detach().to(device) if device else b.detach().clone()
    with _CopyTensors(device), torch.no_grad():
        try:
            return set_aside_(deep_copy(model, memo))
        except Exception as error:
            raise _cannot_copy(model, error) from error


def _cannot_copy(model: nn.Module, error: Exception) -> ModelError:
    """Return the error of a model that cannot be copied, with the attribute that stands in the way."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            try:
                if not name.startswith("_"):
                    copy.deepcopy(value, {id(one): one for one in (*model.modules(), *named_tensors(model).values())})
            except Exception:
                where = ".".join(filter(None, (path, name)))
                return ModelError(
                    f"{type(model).__name__} cannot be copied, and tracing and cutting work on copies: its {where!r} "
                    f"is a {type(value).__name__}. Leave it out of the module, or give its class a __deepcopy__. The "
                    f"cause: {cause(error)}"
                )
    return ModelError(
        f"{type(model).__name__} cannot be copied, and tracing and cutting work on copies: {cause(error)}"
    )


def public_sizes(model: nn.Module) -> Iterator[tuple[dict, str, str, tuple]]:
    """Yield ``(holder, key, module, path)`` of every public attribute of modules and of their plain config objects."""
    seen: set[int] = set()
    for module_path, module in model.named_modules():
        for name, value in list(vars(module).items()):
            if name.startswith("_") or name == "training":
                continue
            if not is_config(value):
                yield vars(module), name, module_path, (name,)
            else:
                for holder, key, path in config_entries(value, seen):
                    yield holder, key, module_path, (name, *path)


def config_entries(config: Any, seen: set[int] | None = None, path: tuple = ()) -> Iterator[tuple[dict, str, tuple]]:
    """Yield ``(holder, key, path)`` of every public attribute of a config and of the configs in it, each once."""
    seen = set() if seen is None else seen
    if id(config) in seen:
        return
    seen.add(id(config))
    for key, value in list(vars(config).items()):
        if key.startswith("_"):
            continue
        if is_config(value):
            yield from config_entries(value, seen, (*path, key))
        else:
            yield vars(config), key, (*path, key)


def tag_sizes(model: nn.Module) -> None:
    """Replace the public ints of every module by sizes that remember their place."""
    for holder, key, module, path in public_sizes(model):
        holder[key] = tagged(holder[key], module, path)


def size_values(model: nn.Module) -> dict[tuple[str, tuple], int]:
    """Return ``{(module, path): value}`` of the ints that ``tag_sizes`` tags."""
    values: dict[tuple[str, tuple], int] = {}
    for holder, key, module, path in public_sizes(model):
        value = holder[key]
        if type(value) is int:
            values[module, path] = value
        elif _is_int_sequence(value):
            values.update({(module, (*path, i)): v for i, v in enumerate(value)})
    return values


def is_config(value: Any) -> bool:
    """Whether an attribute is a plain config object: its class is called so, or it is a namespace."""
    kind = type(value)
    return hasattr(value, "__dict__") and (kind.__name__.endswith("Config") or kind is SimpleNamespace)


def _is_int_sequence(value: Any) -> bool:
    return type(value) in (tuple, list, torch.Size) and bool(value) and all(type(v) is int for v in value)


def tagged(value: Any, module: str, path: tuple) -> Any:
    """Return an int, or a sequence of ints, as sizes that remember this place; anything else as it is."""
    if type(value) is int:
        return Size(value, ("attr", module, path))
    if _is_int_sequence(value):
        return type(value)([tagged(v, module, (*path, i)) for i, v in enumerate(value)])
    return value
