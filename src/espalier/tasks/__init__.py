"""Data, loss and metrics, with train, validation and test splits."""

from .augmentation.augment import Augment
from .batches import Batches
from .evaluation import accuracy
from .load import load_task
from .loader import Loader
from .metrics import Accuracy, Metrics, Overlap, SegmentationLoss, classification_loss, logits, squared_hinge
from .normalise import Normalise
from .own import Data
from .sealed import Reading, SplitError
from .storage import Storage
from .task import Task

__all__ = [
    "Accuracy",
    "Augment",
    "Batches",
    "Data",
    "Loader",
    "Metrics",
    "Normalise",
    "Overlap",
    "Reading",
    "SegmentationLoss",
    "SplitError",
    "Storage",
    "Task",
    "accuracy",
    "classification_loss",
    "load_task",
    "logits",
    "squared_hinge",
]
