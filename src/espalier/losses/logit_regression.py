"""Logit regression: the student learns the teacher's logits themselves."""

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
class LogitRegression(Objective):
    """Match the logits of a teacher, or those that stand for the average probabilities of several.

        loss = (1 - weight) * task loss + weight * mean over places of 1/(2 C) ||z - g||^2      (C classes)

        one teacher       g = its logits
        several           g = log(sum over m of w_m softmax(z_m)) + sum over m of w_m logsumexp(z_m)

    Source: Ba & Caruana 2014, arXiv:1312.6184, equation 2.
    Differs: (1) the mean over classes, not the sum: for logits of mean 0 this is the limit of Hinton's loss for T to
    infinity (arXiv:1503.02531, section 2.1), and one weight fits any number of classes; (2) the paper trains on logits
    alone: weight 1; (3) several teachers are averaged as probabilities, put back on the level of their logits.

    Attributes:
        weight: of the teacher, in [0, 1].

    Raises:
        DistillationError: a weight out of range.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        """Check ranges."""
        check_number("weight", self.weight, 0, 1)

    def parts(self, made: Attachment, call: Call | None) -> list[tuple[Mix, Part]]:
        """Return this objective, attached."""
        shares = made.ensemble.shares

        def distance(own: Tensor, theirs: Sequence[Tensor], dim: int) -> Tensor:
            goal = theirs[0]
            if len(theirs) > 1:
                levels = [w * torch.logsumexp(z, dim, keepdim=True) for w, z in zip(shares, theirs, strict=True)]
                goal = log_probabilities(theirs, shares, dim) + torch.stack(levels).sum(0)
            return (own - goal).square().mean(dim) / 2

        return [(averaged(self.weight), LogitPart(distance))]
