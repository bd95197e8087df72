"""Data, loss and metric, with train, validation and test splits."""

from .augment import Augment
from .load import load_task
from .loader import Loader, Normalise
from .metrics import accuracy, classification_loss, logits
from .task import Task

__all__ = [
    "Augment",
    "Loader",
    "Normalise",
    "Task",
    "accuracy",
    "classification_loss",
    "load_task",
    "logits",
]
