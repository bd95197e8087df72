"""What a loss learns beside the network, such as maps between features, with an optimizer of its own.

    gradient = sum over ranks / ranks      it lies outside the network that an engine wraps, so it is averaged here

Its learning rate is the network's; its gradient is not part of the norm that ``clip_norm`` limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...engines.engine import Engine
from ...graph.recording.tensors import named_tensors
from .optimizers import new_optimizer
from .state import optimizer_data

if TYPE_CHECKING:
    from ..steps import Training

_PREFIX = "adapters/"


class Adapters:
    """The parameters that a loss has, or none: then every call costs nothing."""

    def __init__(self, learned: nn.Module | None, training: Training, engine: Engine) -> None:
        self.module = learned or nn.Module()
        self.engine = engine
        self.parameters = list(self.module.parameters())
        self.optimizer = new_optimizer(self.module, training) if self.parameters else None

    def step(self, lr: float) -> None:
        """Take a step where the network takes one."""
        if self.optimizer is None:
            return
        if self.engine.ranks > 1:
            for parameter in self.parameters:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.engine.sum(own) / self.engine.ranks
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()

    def extra(self) -> dict[str, Tensor]:
        """Return the parameters and their moments, for a checkpoint."""
        _, moments = optimizer_data(self.module, self.optimizer)
        found = {f"parameter/{name}": tensor.detach() for name, tensor in named_tensors(self.module).items()}
        return {_PREFIX + name: tensor for name, tensor in {**found, **moments}.items()}

    def resume(self, extra: Mapping[str, Tensor]) -> None:
        """Take parameters and moments from a checkpoint's tensors."""
        known = named_tensors(self.module)
        for place, value in extra.items():
            if self.optimizer is None or not place.startswith(_PREFIX):
                continue
            kind, _, rest = place.removeprefix(_PREFIX).partition("/")
            if kind == "parameter":
                with torch.no_grad():
                    known[rest].copy_(value)
                continue
            name, _, key = rest.rpartition("/")
            device = known[name].device if value.dim() else value.device  # counters of steps stay on the CPU
            self.optimizer.state[known[name]][key] = value.to(device)
