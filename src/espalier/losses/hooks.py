"""Hooks that see one module and no copy of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


def before(module: nn.Module, call: Callable[[tuple, dict], None]) -> RemovableHandle:
    """Have ``call(args, kwargs)`` called before each forward of this module."""
    return module.register_forward_pre_hook(_Hook(lambda _, args, kwargs: call(args, kwargs)), with_kwargs=True)


def after(module: nn.Module, call: Callable[[Any], None]) -> RemovableHandle:
    """Have ``call(output)`` called after each forward of this module."""
    return module.register_forward_hook(_Hook(lambda _, inputs, output: call(output)))


class _Hook:
    """A hook that a deep copy of its module does not take along: the copy would report to the same place."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> None:
        self.call(*args)

    def __deepcopy__(self, memo: dict) -> Callable[..., None]:
        return _leave


def _leave(module: nn.Module, *_: Any) -> None:
    """Stand in for a hook in a copied module, until the copy first runs."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key in [key for key, hook in hooks.items() if hook is _leave]:
            del hooks[key]
