"""Data, loss and metrics, with train, validation and test splits."""

from .augment import Augment
from .batches import Batches
from .load import load_task
from .loader import Loader, Normalise
from .metrics import Accuracy, Metrics, Overlap, SegmentationLoss, accuracy, classification_loss, logits
from .sealed import Reading, SplitError
from .task import Task

__all__ = [
    "Accuracy",
    "Augment",
    "Batches",
    "Loader",
    "Metrics",
    "Normalise",
    "Overlap",
    "Reading",
    "SegmentationLoss",
    "SplitError",
    "Task",
    "accuracy",
    "classification_loss",
    "load_task",
    "logits",
]
