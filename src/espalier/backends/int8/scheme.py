"""Static or dynamic: what a network consists of says which ranges can be fixed beforehand."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..protocol import call
from .settings import Int8

_RECURRENT = (nn.RNNBase,)


class _Heard(TorchDispatchMode):
    """Notes the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def scheme_of(model: nn.Module, example: Any, settings: Int8) -> Literal["static", "dynamic"]:
    """Return the scheme that was asked for, or the one that fits the network."""
    if settings.scheme != "auto":
        return settings.scheme
    if any(isinstance(module, _RECURRENT) for module in model.modules()):
        return "dynamic"
    with torch.no_grad(), _Heard() as heard:
        call(copy.deepcopy(model).eval(), example)
    attends = any("attention" in name or "transformer" in name for name in heard.names)
    by_hand = "bmm" in heard.names and any("softmax" in name for name in heard.names)
    return "dynamic" if attends or by_hand else "static"
