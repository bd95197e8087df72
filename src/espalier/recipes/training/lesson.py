"""What a stretch of training is: what to do, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.run import Epoch
from ...engines.engine import Alone, Engine

if TYPE_CHECKING:
    from ...methods import Goal, Method
    from ...tasks import Task
    from ..steps import Training


@dataclass(frozen=True, eq=False)
class Loss:
    """What is minimised.

    Attributes:
        of: ``of(inputs, outputs, targets)`` is a scalar.
        learned: what is trained beside the network, such as maps between features; None where nothing is.
        notes: what a user should know of it.
    """

    of: Callable[[Any, Any, Any], Tensor]
    learned: nn.Module | None = None
    notes: tuple[str, ...] = ()


Objective = Callable[[nn.Module], AbstractContextManager[Loss]]  # attached to the network in training


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One stretch of training.

    Attributes:
        task: this process's part of the data, the loss and the metric.
        training: how to train.
        stage: what the stretch is for, in words.
        seed: of all that is random in it.
        first_epoch: number of its first epoch in the run; it decides the order of the data.
        objective: what to minimise in place of the task's loss.
        method: called in the loop.
        goal: what the method is to come to.
        original: the architecture that a method's snapshots are rebuilt from when a run goes on.
        engine: where the network works.
    """

    task: Task
    training: Training
    stage: str
    seed: int
    first_epoch: int = 0
    objective: Objective | None = None
    method: Method | None = None
    goal: Goal | None = None
    original: nn.Module | None = None
    engine: Engine = field(default_factory=lambda: Alone(torch.device("cpu")))


@dataclass(frozen=True)
class Position:
    """How far a stretch has come: whole epochs, batches of the next one, their loss, the record and notes so far.

    ``cuts`` counts those that a method made, once the stretch is over; ``gap`` is the largest that their proofs found.
    """

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    history: tuple[Epoch, ...] = ()
    notes: tuple[str, ...] = ()
    cuts: int = 0
    gap: float = 0.0

    def to_data(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Position:
        """Read what ``to_data`` returned."""
        history = tuple(Epoch(**epoch) for epoch in data["history"])
        return cls(**{**data, "history": history, "notes": tuple(data["notes"])})


START = Position()
Checkpoint = Callable[[Position, "Callable[[], dict[str, Tensor]]"], None]
