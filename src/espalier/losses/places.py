"""Places: where a network's outputs hold one vector of logits: a sample, a pixel, a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..graph.probes.outputs import logits
from .errors import DistillationError
from .objective import Part, widened

Distance = Callable[[Tensor, Sequence[Tensor], int], Tensor]


class LogitPart(Part):
    """The mean, over places that are not void, of a distance between the student's logits and the teachers'."""

    def __init__(self, distance: Distance) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, answers: Sequence[Any], outputs: Any, targets: Any) -> Tensor:
        own = widened(logits(outputs))
        theirs = [widened(logits(answer).to(own.device)) for answer in answers]
        for one in theirs:
            if one.shape != own.shape:
                raise DistillationError(
                    f"the student answers with logits of shape {tuple(own.shape)}, a teacher with {tuple(one.shape)}: "
                    "both need the same classes and places"
                )
        dim = class_dimension(own, targets)
        distances = self.distance(own, theirs, dim)
        counts = counted(distances, targets, own.shape[dim])
        if counts is None:
            return distances.mean()
        return torch.where(counts, distances, 0.0).sum() / counts.sum().clamp_min(1)


def class_dimension(own: Tensor, targets: Any) -> int:
    """Return the classes' dimension: 1, or the last where only then the targets have a number a place.

    Args:
        own: logits (batch, classes), (batch, classes, ...) or, of tokens, (batch, tokens, classes).
        targets: of the task.
    """
    if isinstance(targets, Tensor) and targets.shape == own.shape[:-1] != own.shape[:1] + own.shape[2:]:
        return own.dim() - 1
    return min(1, own.dim() - 1)


def counted(distances: Tensor, targets: Any, classes: int) -> Tensor | None:
    """Return which places count: those whose target is a class; None where targets are not numbers a place.

    Targets of another height and width than the logits' are read at the nearest pixel.
    """
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.dim() != distances.dim():
        return None
    if targets.shape != distances.shape:
        if targets.dim() != 3 or len(targets) != len(distances):
            return None
        near = functional.interpolate(targets[:, None].double(), size=distances.shape[1:], mode="nearest")
        targets = near[:, 0].to(targets.dtype)
    return (targets >= 0) & (targets < classes)
