"""Masks in training: what they hide is exactly zero after every step of the optimizer, in all that the learner holds.

    gradients * mask ──clip, optimizer.step──▶ weights * mask ──▶ average
    moments * mask   whenever masks become tighter, and when a stretch begins

A hidden weight without a gradient, a moment or a value gets none: momentum, weight decay and averaging keep it at zero,
and its gradient does not count in the norm that ``clip_norm`` limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...engines.engine import like, local
from ...graph.masks import masks_of
from ...graph.recording.tensors import named_tensors

if TYPE_CHECKING:
    from .learner import Learner


class Masking:
    """The masks of a learner at work, or none: then every call costs nothing.

    Making one sets what they hide to zero in the weights, in the optimizer's moments and in the average.

    Attributes:
        masks: those that the learner's network carries.
    """

    def __init__(self, learner: Learner) -> None:
        self.masks = masks_of(learner.model)
        tensors = named_tensors(learner.model) if self.masks else {}
        hidden = {name: _hidden(mask, tensors[name]) for name, mask in self.masks.kept.items()}
        self._pairs = [(tensors[name], own) for name, own in hidden.items()]
        self.weights()
        self._moments(learner)
        self._average(learner, hidden)

    def of(self, learner: Learner) -> Masking:
        """Return this, or the masking of the masks that the learner's network carries now."""
        return self if masks_of(learner.model) is self.masks else Masking(learner)

    @torch.no_grad()
    def gradients(self) -> None:
        """Drop the gradients of hidden weights."""
        for weight, hidden in self._pairs:
            if weight.grad is not None:
                local(weight.grad).masked_fill_(hidden, 0)

    @torch.no_grad()
    def weights(self) -> None:
        """Set hidden weights to zero."""
        for weight, hidden in self._pairs:
            local(weight).masked_fill_(hidden, 0)

    @torch.no_grad()
    def _moments(self, learner: Learner) -> None:
        for weight, hidden in self._pairs:
            for value in learner.optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    local(value).masked_fill_(hidden, 0)

    @torch.no_grad()
    def _average(self, learner: Learner, hidden: dict[str, Tensor]) -> None:
        if learner.average is None or not hidden:
            return
        learner.average.model.espalier_masks = self.masks  # type: ignore[assignment]
        averaged = named_tensors(learner.average.model)
        for name, own in hidden.items():
            local(averaged[name]).masked_fill_(own, 0)


def _hidden(mask: Tensor, weight: Tensor) -> Tensor:
    """Return what a mask hides of a weight, where the weight is: of its shard where that is one."""
    return local(like(~mask, weight))
