"""A pruning layer: one factor a unit, in a real format that is learned and a binary one that is the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn


class PruningLayer:
    """1x1 depth-wise kernels, one number a channel, in both formats.

    Attributes:
        real: p in [0, 1], learned.
        gate: what the network multiplies the channels by.
        threshold: tau.
        form: which format the network sees.
        velocity: of the momentum.
    """

    def __init__(self, gate: nn.Parameter, threshold: float, form: Literal["real", "binary"]) -> None:
        self.gate, self.threshold, self.form = gate, threshold, form
        self.real = nn.Parameter(gate.detach().clone())
        self.velocity = torch.zeros_like(gate)

    @property
    def binary(self) -> Tensor:
        """The mask: b = 1[p >= tau]."""
        return (self.real.detach() >= self.threshold).to(self.real.dtype)

    @torch.no_grad()
    def show(self) -> None:
        """Let the network see p in the layer's format."""
        self.gate.copy_(self.binary if self.form == "binary" else self.real)

    @torch.no_grad()
    def step(self, lr: float, momentum: float, sum_ranks: Callable[[Tensor], Tensor]) -> None:
        """Move p by the loss's gradient at the gate (straight through a binary one) and its own, within [0, 1]."""
        task = torch.zeros_like(self.gate) if self.gate.grad is None else self.gate.grad
        own = torch.zeros_like(task) if self.real.grad is None else self.real.grad
        ranks = sum_ranks(torch.ones((), device=task.device))
        self.velocity.mul_(momentum).add_(sum_ranks((task + own).clone()) / ranks)
        self.real.sub_(lr * self.velocity)
        self.velocity[(self.real < 0) | (self.real > 1)] = 0.0  # what pushed it against the wall does not push it on
        self.real.clamp_(0, 1)
        self.gate.grad = self.real.grad = None
        self.show()
