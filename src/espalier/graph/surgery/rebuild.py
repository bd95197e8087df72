"""Rebuild: what a module's class makes of a config, to see which sizes the config gives to what.

config, its ints tagged ──type(module)(config), weights without data──▶ module whose sizes are expressions
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..recording.record import walk
from ..recording.sizes import Expr, Size, expr_of
from ..recording.tensors import every_name

_FACTORIES = {"empty", "zeros", "ones", "full", "rand", "randn"}
_FILLERS = {
    "normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_",
    "orthogonal_", "constant_", "zeros_", "ones_", "fill_", "zero_", "copy_",
}  # fmt: skip
_SMALL_ELEMENTS = 4096  # what is not larger keeps its values, so that tables can be compared


@dataclass(frozen=True)
class Rebuilt:
    """A module made from a config.

    Attributes:
        module: its large freshly allocated tensors are on meta, what is computed has its values.
        sizes: ``{tensor name: one expression a dimension}`` of tensors that were allocated with tagged sizes.
    """

    module: nn.Module
    sizes: dict[str, tuple[Expr, ...]]


def rebuild(kind: type[nn.Module], config: Any) -> Rebuilt:
    """Return ``kind(config)``, without data in its weights; the random state is as before.

    Raises:
        Exception: whatever the constructor raises.
    """
    factories = _Factories()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.no_grad(), factories:
        warnings.simplefilter("ignore")  # the user has seen them when the model was built
        module = kind(config)
    found = {}
    for name, tensor in every_name(module):
        sizes = factories.given.get(_storage(tensor), ())
        if len(sizes) == tensor.dim() and tuple(map(int, sizes)) == tuple(tensor.shape):
            found[name] = tuple(expr_of(size) for size in sizes)
    return Rebuilt(module, found)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Factories(TorchFunctionMode):
    """Allocates large tensors without data, and notes the sizes that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[int, tuple[int, ...]] = {}
        self._alive: list[torch.Tensor] = []  # storages stay distinct while the tensors live

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        first = args[0] if args else kwargs.get("tensor")
        if name in _FILLERS and isinstance(first, torch.Tensor) and first.is_meta:
            return first
        if name not in _FACTORIES:
            return func(*args, **kwargs)
        sizes = _sizes(name, args, kwargs)
        if name == "empty" and math.prod(map(int, sizes)) > _SMALL_ELEMENTS:
            kwargs = {**kwargs, "device": "meta"}
        result = func(*args, **kwargs)
        if any(isinstance(size, Size) for size in sizes):
            self.given[_storage(result)] = sizes
            self._alive.append(result)
        return result


def _sizes(name: str, args: tuple, kwargs: dict) -> tuple[int, ...]:
    given = (args[:1] if name == "full" else args) or (kwargs.get("size", ()),)
    return tuple(size for size in walk(given) if isinstance(size, int) and not isinstance(size, bool))
