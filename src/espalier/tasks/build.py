"""From splits of images to a task: what is held in memory, how many classes there are, and the three loaders."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..core import FileError
from .augmentation.augment import Augment
from .images import Encoded, Images
from .loader import Loader
from .metrics import Overlap, SegmentationLoss
from .normalise import GREY, IMAGENET, Normalise
from .splits import Split, Splits
from .storage import Storage
from .task import Task

_USUAL_VOID = 255  # PASCAL VOC, Cityscapes and ADE20K mark pixels of no class so
_NAMES = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How to make batches; what is None follows from the data.

    Attributes:
        batch_size: images a batch, in all splits.
        seed: of the training order and augmentation.
        normalise: mean and standard deviation a channel.
        augment: for training.
        storage: what is held, and where.
    """

    batch_size: int = 128
    seed: int = 0
    normalise: Normalise | None = None
    augment: Augment | None = None
    storage: Storage = field(default_factory=Storage)


def build(name: str, splits: Splits, loading: Loading) -> Task:
    """Return the task of these splits.

    Raises:
        FileError: a split is empty, or a label is of no class.
    """
    channels = splits.train.shape[0]
    normalise = loading.normalise or (GREY if channels == 1 else IMAGENET)
    if len(normalise.mean) != channels or len(normalise.std) != channels:
        raise FileError(f"{name} has {channels} channels, and the mean and std given are for {len(normalise.mean)}")
    augment = loading.augment or Augment(flip=channels == 3, pad=splits.train.shape[1] // 8)
    splits = _held(name, splits, loading.storage, augment)
    classes = _classes(name, splits)

    def loader(split: Split) -> Loader:
        workers = loading.storage.workers_for(split.images, split.targets)
        return Loader(
            split.images,
            split.targets,
            normalise,
            loading.batch_size,
            classes=classes,
            void=splits.void,
            workers=workers,
        )

    training = replace(loader(splits.train), shuffle=True, augment=augment, seed=loading.seed)
    task = Task(name, training, loader(splits.validation), loader(splits.test), classes, splits.train.shape)
    named = replace(task, class_names=splits.class_names if len(splits.class_names) == classes else ())
    if not splits.segments:
        return named
    overlap = Overlap(classes, splits.void)
    return replace(named, kind="segmentation", metrics=overlap, loss=SegmentationLoss(splits.void))


def _held(name: str, splits: Splits, storage: Storage, augment: Augment) -> Splits:
    """Decode what fits in memory. Random crops are taken from whole images, which may be larger than the inputs."""

    def hold(split: Split, what: str, *, whole: bool = False) -> Split:
        if not len(split.targets):
            raise FileError(f"{name}: the {what} split is empty")
        if whole and isinstance(split.images, Encoded) and split.images.cropping:
            return split
        title = f"Decoding {name} ({what})"
        return replace(
            split, images=storage.hold(split.images, title), targets=storage.hold(split.targets, f"{title}, masks")
        )

    held = replace(
        splits,
        train=hold(splits.train, "training", whole=augment.crop_area is not None),
        validation=hold(splits.validation, "validation"),
        test=hold(splits.test, "test"),
    )
    if (
        splits.segments
        and splits.void is None
        and any(_USUAL_VOID in _labels(getattr(held, s).targets) for s in _NAMES)
    ):
        return replace(held, void=_USUAL_VOID)
    return held


def _classes(name: str, splits: Splits) -> int:
    """Count the classes of the training split, and see that the others have no more."""
    found = {split: _labels(getattr(splits, split).targets) - {splits.void} for split in _NAMES}
    for split, labels in found.items():
        if min(labels, default=0) < 0:
            raise FileError(f"{name}: a label of the {split} split is negative")
    known = len(splits.class_names) if splits.segments else 0
    classes = known or max(found["train"], default=-1) + 1
    if not classes:
        raise FileError(
            f"{name}: how many classes there are is not known, as the label maps do not fit in memory; raise "
            "memory_bytes of the Storage, or give the data by a function of your own with classes"
        )
    if max(set().union(*found.values()), default=-1) >= classes:
        raise FileError(f"{name}: the test or validation split has classes that training has not")
    return classes


def _labels(targets: Images) -> set[int]:
    """Return the labels that occur; none of label maps that are not held."""
    if not isinstance(targets, Tensor):
        return set()
    counts = torch.bincount(targets.flatten()) if targets.dtype == torch.uint8 else None
    values = torch.unique(targets) if counts is None else counts.nonzero().flatten()
    return set(values.tolist())
