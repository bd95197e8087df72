"""Comparing features: the layers of each teacher beside the student's, forward by forward."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import Attachment, Call
from .layers import Match, Named, match_layers
from .objective import Part, widened


class FeaturePart(Part):
    """The mean of a distance over layers, weighted over teachers.

    Layers are matched at once where a call is given, at the student's first call otherwise.
    """

    def __init__(self, made: Attachment, call: Call | None, layers: Named, stages: int) -> None:
        super().__init__()
        self.made, self.named, self.stages = made, layers, stages
        self.matches: list[tuple[nn.Module, float, list[Match]]] = []
        if call is None:
            made.at_first_call(self.prepare)
        else:
            self.prepare(call)

    def prepare(self, call: Call) -> None:
        """Match the layers of every teacher and begin to watch them."""
        for teacher, share in zip(self.made.ensemble.teachers, self.made.ensemble.shares, strict=True):
            matches = match_layers(teacher, self.made.student, call, self.named, self.stages)
            for match in matches:
                self.check(match)
                self.made.watch(teacher, match.teacher)
                self.made.watch(self.made.student, match.student)
            self.matches.append((teacher, share, matches))
        self.notes = tuple(str(match) for _, _, matches in self.matches for match in matches)

    @abstractmethod
    def check(self, match: Match) -> None:
        """Refuse a match that this objective cannot compare."""

    @abstractmethod
    def distance(self, number: int, match: Match, theirs: Tensor, own: Tensor) -> Tensor:
        """Return the distance between the features of one layer, the ``number``-th of all, as a scalar."""

    def forward(self, answers: Sequence[Any], outputs: Any, targets: Any) -> Tensor:
        total = []
        for teacher, share, matches in self.matches:
            for match in matches:
                own = widened(self.made.feature(self.made.student, match.student))
                theirs = widened(self.made.feature(teacher, match.teacher)).to(own.device)
                total.append(share / len(matches) * self.distance(len(total), match, theirs, own))
        return torch.stack(total).sum()
