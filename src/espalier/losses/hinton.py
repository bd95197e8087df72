"""Knowledge distillation: the student learns the teacher's softened probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attachment import Attachment, Call
from .ensemble import log_probabilities
from .objective import Mix, Objective, Part, averaged, check_number
from .places import LogitPart


@dataclass(frozen=True, kw_only=True)
class Hinton(Objective):
    """Match the softened probabilities of a teacher, or of several on average.

        p = sum over teachers m of w_m softmax(z_m / T),   q = softmax(z / T)
        loss = (1 - weight) * task loss + weight * T^2 * mean over places of KL(p || q)

    A place is a sample, or a pixel or token of one; void ones do not count. T^2 keeps the gradient's size when T
    changes. Both logarithms are log-softmaxes in float32, so no probability underflows.

    Source: Hinton et al. 2015, arXiv:1503.02531, sections 2 and 2.1.
    Differs: (1) KL divergence in place of cross-entropy: the same gradient, and 0 when the student is the teacher.

    Attributes:
        temperature: T, above 0; small students prefer 2.5 to 4.
        weight: of the teacher, in [0, 1].

    Raises:
        DistillationError: a number out of range.
    """

    temperature: float = 4.0
    weight: float = 0.7

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("temperature", self.temperature, 0, open_end=True)
        check_number("weight", self.weight, 0, 1)

    def parts(self, made: Attachment, call: Call | None) -> list[tuple[Mix, Part]]:
        """Return this objective, attached."""
        t = self.temperature

        def distance(own: Tensor, theirs: Sequence[Tensor], dim: int) -> Tensor:
            log_p = log_probabilities([z / t for z in theirs], made.ensemble.shares, dim)
            return t**2 * (log_p.exp() * (log_p - torch.log_softmax(own / t, dim))).sum(dim)

        return [(averaged(self.weight), LogitPart(distance))]
