"""Data of the user's own: tensors, torch Datasets or DataLoaders, from a function in a file or from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from ..core import FileError
from ..core.user_file import UserFunction
from .augmentation.augment import Augment
from .batches import Batches, as_batches
from .build import Loading
from .datasets import DatasetLoader, loader_of
from .loader import Loader
from .metrics import Accuracy, Metrics, Overlap, SegmentationLoss, classification_loss
from .normalise import as_is
from .sources.huggingface import is_datasets
from .splits import VALIDATION_SHARE, reference_order
from .task import Kind, Task


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Splits of the user's own, and what they are about.

    A split is a pair of tensors or arrays (inputs, targets), a torch ``Dataset``, a ``DataLoader`` or a list of
    batches. Inputs are given as the network reads them.

    Attributes:
        train, test: splits.
        validation: another; a tenth of training is set aside when None, in the order of
            ``numpy.random.default_rng(0).permutation``.
        classes: outputs that a network needs; what the labels or the Dataset's attribute ``classes`` say when None.
        class_names: in the order of their numbers.
        void: label of pixels that are of no class, where targets are label maps.
        augment: for training, where inputs are tensors of images.
        loss, metrics: others than those of classification, or of segmentation where targets are label maps.
    """

    train: Any
    test: Any
    validation: Any = None
    classes: int | None = None
    class_names: Sequence[str] = ()
    void: int | None = None
    augment: Augment | None = None
    loss: Callable[[Any, Tensor], Tensor] | None = None
    metrics: Metrics | None = None


def task_in_file(name: str, loading: Loading, image_size: int | None) -> Any:
    """Call the function ``path/to/file.py:function`` and return its ``Task``, ``Data`` or Hugging Face datasets.

    It is called with those of ``batch_size``, ``seed`` and ``image_size`` that it takes. It returns a ``Task``, a
    ``Data``, (train, validation, test), (train, test), or a ``DatasetDict``.
    """
    given = {"batch_size": loading.batch_size, "seed": loading.seed, "image_size": image_size}
    function = UserFunction.parse(name, FileError, "data", offered=given)
    takes = function.arguments()
    found = function.call({key: value for key, value in given.items() if key in takes}, ", ".join(given))
    if isinstance(found, Task | Data) or is_datasets(found):
        return found
    if isinstance(found, tuple | list) and len(found) in (2, 3):
        validation = found[1] if len(found) == 3 else None
        return Data(train=found[0], validation=validation, test=found[-1])
    raise FileError(
        f"{name} returned {type(found).__name__}; it should return a Task, a Data, (train, validation, test) or "
        "(train, test), each a Dataset, a DataLoader or a pair of tensors (inputs, targets)"
    )


def task_of(name: str, data: Data, loading: Loading) -> Task:
    """Return the task of the user's data.

    Raises:
        FileError: a split cannot be read again and again, or nobody says how many classes there are.
    """
    train, validation, test = map(_plain, (data.train, data.validation, data.test))
    if validation is None:
        train, validation = _set_aside(name, train)
    inputs, targets = _first(validation)
    segments = isinstance(targets, Tensor) and targets.dim() >= 3 and not targets.is_floating_point()
    kind: Kind = "segmentation" if segments else "classification"
    classes = data.classes or len(data.class_names) or _count(name, train, data.void)
    augment = loading.augment or data.augment

    def batches(split: Any, *, training: bool = False) -> Batches:
        if isinstance(split, tuple):
            return Loader(
                *_images(split),
                normalise=as_is,
                batch_size=loading.batch_size,
                shuffle=training,
                augment=augment if training else None,
                seed=loading.seed,
                classes=classes,
                void=data.void,
            )
        if isinstance(split, Dataset | DataLoader):
            workers = loading.storage.workers or 0
            return loader_of(split, loading.batch_size, loading.seed, shuffle=training, workers=workers)
        return as_batches(split)

    return Task(
        name,
        batches(train, training=True),
        batches(validation),
        batches(test),
        classes,
        tuple(inputs.shape[1:]),
        loss=data.loss or (SegmentationLoss(data.void) if segments else classification_loss),
        metrics=data.metrics or (Overlap(classes, data.void) if segments else Accuracy()),
        kind=kind,
        class_names=tuple(data.class_names),
    )


def _plain(split: Any) -> Any:
    """Return a pair of tensors as a tuple of them, whatever it came as."""
    if isinstance(split, TensorDataset) and len(split.tensors) == 2:
        split = split.tensors
    pair = isinstance(split, tuple | list) and len(split) == 2
    if not pair or not all(isinstance(part, Tensor | np.ndarray) for part in split):
        return split
    inputs, targets = (torch.as_tensor(part) for part in split)
    if len(inputs) != len(targets):
        raise FileError(f"{len(inputs)} inputs and {len(targets)} targets")
    return inputs, targets


def _images(split: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return inputs, and targets as a ``Loader`` has them: label maps have a channel."""
    inputs, targets = split
    return inputs, targets[:, None] if targets.dim() == 3 else targets


def _set_aside(name: str, train: Any) -> tuple[Any, Any]:
    """Divide training into training and validation."""
    if isinstance(train, tuple):
        parts = _divided(len(train[1]))
        return tuple((train[0][part], train[1][part]) for part in parts)  # type: ignore[return-value]
    if isinstance(train, Dataset) and hasattr(train, "__len__"):
        parts = _divided(len(train))  # type: ignore[arg-type]
        return tuple(Subset(train, part.tolist()) for part in parts)  # type: ignore[return-value]
    raise FileError(
        f"{name} has no validation, and {type(train).__name__} cannot be divided: give a validation split too, or "
        "training as a Dataset or a pair of tensors"
    )


def _divided(count: int) -> tuple[Tensor, ...]:
    kept = count - int(count * VALIDATION_SHARE)
    return reference_order(count).split([kept, count - kept])


def _first(split: Any) -> tuple[Any, Any]:
    """Return a batch to see what the data looks like."""
    if isinstance(split, tuple):
        return split
    if isinstance(split, Dataset) and not isinstance(split, DataLoader):
        split = DatasetLoader(split, batch_size=1)
    return next(iter(split))


def _count(name: str, train: Any, void: int | None) -> int:
    """Return how many classes the training split has, without reading its inputs."""
    if isinstance(train, Subset):
        train = train.dataset
    if isinstance(train, DataLoader):
        train = train.dataset
    if isinstance(train, tuple):
        labels = set(torch.unique(train[1]).tolist()) - {void}
        return train[1].shape[1] if train[1].is_floating_point() else int(max(labels)) + 1
    known = getattr(train, "classes", None)
    if known is not None and len(known):
        return len(known)
    labels = getattr(train, "targets", None)
    if labels is not None and len(labels):
        return int(torch.as_tensor(labels).max()) + 1
    raise FileError(
        f"{name} does not say how many classes it has: return Data(train=..., test=..., classes=...), or give the "
        "dataset an attribute classes with their names"
    )
