"""What a network is for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .loader import Loader
from .metrics import classification_loss


@dataclass(frozen=True, eq=False)
class Task:
    """Data, loss and metric.

    Attributes:
        name: what ``load_task`` was asked for.
        train: shuffled and augmented batches.
        validation: for every choice: rates, thresholds, early stopping.
        test: read once, at the end.
        classes: outputs that a classifier needs.
        input_shape: of one input, without the batch.
        loss: ``loss(outputs, targets)`` returns a scalar.
        metric: its name; higher is better.
    """

    name: str
    train: Loader
    validation: Loader
    test: Loader
    classes: int
    input_shape: tuple[int, ...]
    loss: Callable[[Any, Tensor], Tensor] = classification_loss
    metric: str = "accuracy"

    def example(self, batch: int = 2) -> Tensor:
        """Return the first ``batch`` training inputs, neither shuffled nor augmented."""
        return self.train.normalise(self.train.images[torch.arange(batch)])
