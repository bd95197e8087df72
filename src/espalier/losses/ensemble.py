"""Ensembles: several teachers that answer as one, by the average of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import DistillationError


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Several teachers, and how much the word of each counts.

        p = sum over teachers m of w_m softmax(z_m / T),   sum of w_m = 1

    Source: Hinton et al. 2015, arXiv:1503.02531, sections 1 and 5.
    Differs: (1) the weights need not be equal; (2) probabilities are averaged, not logits (their geometric mean).

    Attributes:
        teachers: at least one.
        weights: one a teacher, positive, scaled to a sum of 1; equal when none are given.

    Raises:
        DistillationError: no teacher, something that is no module, or weights that do not fit.
    """

    teachers: tuple[nn.Module, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check what was given."""
        if not self.teachers or not all(isinstance(teacher, nn.Module) for teacher in self.teachers):
            raise DistillationError("an ensemble needs at least one teacher, and every teacher must be an nn.Module")
        if self.weights and len(self.weights) != len(self.teachers):
            raise DistillationError(
                f"{len(self.teachers)} teachers, but {len(self.weights)} weights: give one a teacher"
            )
        if not all(0 < weight < math.inf for weight in self.weights):
            raise DistillationError(f"the teachers' weights {self.weights} must be above 0")

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the weights, with a sum of 1."""
        weights = self.weights or (1.0,) * len(self.teachers)
        return tuple(weight / math.fsum(weights) for weight in weights)


def ensemble(teachers: nn.Module | Sequence[nn.Module] | Ensemble) -> Ensemble:
    """Return one teacher, or several that count the same, as an ensemble."""
    if isinstance(teachers, Ensemble):
        return teachers
    return Ensemble((teachers,) if isinstance(teachers, nn.Module) else tuple(teachers))


def log_probabilities(answers: Sequence[Tensor], shares: Sequence[float], dim: int) -> Tensor:
    """Return the log of the averaged probabilities: log sum over m of exp(log w_m + log softmax(z_m)).

    Args:
        answers: the teachers' logits, already divided by the temperature; all of one shape.
        shares: the teachers' weights, with a sum of 1.
        dim: the classes' dimension.
    """
    logs = [torch.log_softmax(z, dim) for z in answers]
    if len(logs) == 1:
        return logs[0]
    weighted = [log + math.log(share) for log, share in zip(logs, shares, strict=True)]
    return torch.logsumexp(torch.stack(weighted), dim=0)
