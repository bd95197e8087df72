"""Objectives and terms: what is asked of the student besides its task, and the loss while a teacher is attached.

    with Hinton(temperature=4).attached(dense, small) as term:
        for inputs, targets in batches:
            outputs = small(inputs)
            loss = term(inputs, outputs, targets, task.loss(outputs, targets))

A term runs the teachers once and hands their answers to its parts, one an objective.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attachment import Attachment, Call, attachment
from .ensemble import Ensemble, ensemble
from .errors import DistillationError

Mix = Callable[[Tensor, Tensor], Tensor]  # (loss so far, distance) -> loss


class Part(nn.Module, ABC):
    """One objective while it is attached; its parameters, if any, are trained with the student."""

    notes: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, answers: Sequence[Any], outputs: Any, targets: Any) -> Tensor:
        """Return the distance of the student from its teachers on the last batch, a scalar in float32 or wider.

        Args:
            answers: what each teacher returned.
            outputs: what the student returned.
            targets: of the task.
        """


@dataclass(frozen=True)
class Objective(ABC):
    """What a student is to imitate, and how much that counts beside the task's own loss."""

    @contextmanager
    def attached(
        self, teachers: nn.Module | Sequence[nn.Module] | Ensemble, student: nn.Module, *, example: Any = None
    ) -> Iterator[Term]:
        """Yield the loss term of ``student`` with these teachers; nothing is left on any of them afterwards.

        Teachers run in eval mode, without gradients, under the autocast of the student's last forward, on the inputs
        that the term is given, where they are: they are neither trained nor moved. Attach anew after a cut.

        Args:
            teachers: one (as a rule the dense network), several that count the same, or an ``Ensemble``.
            student: the very module whose forward makes the outputs; for wrapped ones, what is inside the wrapper.
            example: a tensor, a tuple of positional arguments or a dict of keywords; objectives that look into layers
                take the student's first call otherwise.

        Raises:
            DistillationError: teachers, student and objective do not go together.
        """
        with attachment(ensemble(teachers), student) as made:
            yield Term(made, self.parts(made, None if example is None else Call(example)))

    @abstractmethod
    def parts(self, made: Attachment, call: Call | None) -> list[tuple[Mix, Part]]:
        """Return the parts of the term, each with how it is mixed with the loss so far."""


def averaged(weight: float) -> Mix:
    """Return (1 - weight) * loss so far + weight * distance."""
    return lambda loss, distance: (1 - weight) * loss + weight * distance


def added(weight: float) -> Mix:
    """Return loss so far + weight * distance."""
    return lambda loss, distance: loss + weight * distance


class Term(nn.Module):
    """The loss while teachers are attached. Its parameters are those of learned adapters, for the optimizer."""

    def __init__(self, made: Attachment, parts: Sequence[tuple[Mix, Part]]) -> None:
        super().__init__()
        self.made = made
        self.mixes = [mix for mix, _ in parts]
        self.parts = nn.ModuleList(part for _, part in parts)

    def forward(self, inputs: Any, outputs: Any, targets: Any, task_loss: Tensor) -> Tensor:
        """Return the loss to minimise.

        Args:
            inputs: the batch as the student got it: a tensor, a tuple (positional) or a dict (keywords).
            outputs: what the student returned for it: logits, or whatever holds them.
            targets: class numbers or probabilities; numbers that are no class mark void places.
            task_loss: the task's own loss of ``outputs`` and ``targets``.
        """
        try:
            answers = self.made.answers(inputs)
            loss = task_loss
            with torch.autocast(task_loss.device.type, enabled=False):
                for mix, part in zip(self.mixes, self.parts, strict=True):
                    loss = mix(loss, part(answers, outputs, targets))
            return loss
        finally:
            self.made.forget()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return, in words, what is compared with what."""
        return tuple(note for part in self.parts for note in part.notes)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Together(Objective):
    """Several objectives at once, with one forward of the teachers.

        loss = mix_n( ... mix_2(mix_1(task loss, distance_1), distance_2) ..., distance_n)

    Attributes:
        objectives: in the order in which they are mixed in.
    """

    objectives: tuple[Objective, ...]

    def parts(self, made: Attachment, call: Call | None) -> list[tuple[Mix, Part]]:
        """Return the parts of all objectives."""
        return [part for objective in self.objectives for part in objective.parts(made, call)]


def check_number(name: str, value: float, least: float, most: float = math.inf, *, open_end: bool = False) -> None:
    """Check a hyperparameter's range.

    Raises:
        DistillationError: it is outside, not finite, or (``open_end``) equal to the least.
    """
    if not (math.isfinite(value) and least <= value <= most) or (open_end and value == least):
        low = f"above {least:g}" if open_end else f"at least {least:g}"
        raise DistillationError(
            f"{name}={value:g}: must be {low}" + (f" and at most {most:g}" if most < math.inf else "")
        )


def widened(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or as it is where that is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
