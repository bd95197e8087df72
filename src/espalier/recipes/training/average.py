"""A moving average of the weights, as a network of its own beside the one that is trained.

average <- average + (1 - d) * (weights - average),   d = min(decay, (1 + t) / (10 + t)) after t steps
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...engines.engine import local


class Average:
    """The moving average of a network.

    *Source*: Polyak and Juditsky, 1992; the early decay is that of TensorFlow's ``ExponentialMovingAverage``.
    *Differs*: (1) batch norms' statistics are averaged as the weights are.

    Attributes:
        model: holds the average; cut it as the trained one is cut.
        steps: averaged so far.
    """

    def __init__(self, model: nn.Module, decay: float, steps: int = 0) -> None:
        self.model, self.decay, self.steps = copy.deepcopy(model).eval(), decay, steps

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take another step of ``model`` into the average."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for mean, value in zip(_tensors(self.model), _tensors(model), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for tensor in (*model.parameters(), *model.buffers()):
        yield local(tensor)
