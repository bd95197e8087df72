"""Lessons for the training loop: small networks, a task, and what two trainings have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from espalier.core.run import Epoch
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.state import State
from espalier.tasks import Task

ONE = Training(epochs=1, lr=0.05)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))


def images() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def taught(task: Task, training: Training, model: nn.Module | None = None, **more: Any) -> tuple[Learner, Position]:
    learner = Learner.of(State(model or network()), training)
    lesson = Lesson(task=task.new_run(), training=training, stage="x", seed=3, **more)
    return learner, train(learner, lesson)


def scores(epochs: tuple[Epoch, ...]) -> list[tuple[float, float | None]]:
    return [(epoch.loss, epoch.accuracy) for epoch in epochs]


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
