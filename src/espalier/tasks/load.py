"""Tasks by name: ``digits``, ``parquet:PATH``, ``imagefolder:PATH``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from espalier.core import FileError, UnknownNameError

from . import digits, imagefolder, parquet
from .augment import Augment
from .loader import GREY, IMAGENET, Loader, Normalise
from .splits import Split
from .task import Task


@dataclass(frozen=True)
class _Source:
    """Where splits come from: ``read(path, image_size)``, and whether it reads a folder."""

    read: Callable[[Path, int | None], tuple[Split, Split, Split]]
    folder: bool
    normalise: Normalise | None = None
    augment: Augment | None = None


_SOURCES = {
    "digits": _Source(digits.read, folder=False, normalise=digits.NORMALISE, augment=Augment(flip=False, pad=1)),
    "imagefolder": _Source(imagefolder.read, folder=True),
    "parquet": _Source(parquet.read, folder=True),
}
_NAMES = [name + (":PATH" if source.folder else "") for name, source in _SOURCES.items()]


def load_task(
    source: str,
    *,
    batch_size: int = 128,
    seed: int = 0,
    image_size: int | None = None,
    normalise: Normalise | None = None,
    augment: Augment | None = None,
) -> Task:
    """Load a classification task.

    >>> task = load_task("digits")
    >>> task.classes, task.input_shape, len(task.train.labels)
    (10, (1, 8, 8), 1259)

    Args:
        source: ``digits`` (scikit-learn's, 8x8), ``parquet:PATH`` (a folder with train.parquet and test.parquet), or
            ``imagefolder:PATH`` (a folder a class, inside train/ and val/ or alone).
        batch_size: images a batch, in all splits.
        seed: of the training order and augmentation. The splits do not depend on it.
        image_size: height and width to scale to; a parquet's own size, or 224 for image folders, when None.
        normalise: mean and standard deviation a channel; ImageNet's when None (their average for grey images).
        augment: for training; by default colour images are mirrored and shifted by an eighth, grey ones only shifted.

    Raises:
        UnknownNameError: no such source.
        FileError: the data is missing, or cannot be read as images with labels.
    """
    kind, path = _parse(source)
    train, validation, test = kind.read(path, image_size)
    channels, height = train.shape[0], train.shape[1]
    normalise = normalise or kind.normalise or (GREY if channels == 1 else IMAGENET)
    if len(normalise.mean) != channels or len(normalise.std) != channels:
        raise FileError(f"{source} has {channels} channels, and the mean and std given are for {len(normalise.mean)}")
    augment = augment or kind.augment or Augment(flip=channels == 3, pad=height // 8)

    def loader(split: Split) -> Loader:
        return Loader(split.images, split.labels, normalise, batch_size)

    training = Loader(train.images, train.labels, normalise, batch_size, shuffle=True, augment=augment, seed=seed)
    classes = _classes(source, train.labels, validation.labels, test.labels)
    return Task(source, training, loader(validation), loader(test), classes, train.shape)


def _parse(source: str) -> tuple[_Source, Path]:
    name, colon, path = source.partition(":")
    if name not in _SOURCES:
        raise UnknownNameError("data source", name, _NAMES, f"Data is one of {', '.join(_NAMES)}.")
    kind = _SOURCES[name]
    if kind.folder and not path:
        raise FileError(f"{name} needs a folder: {name}:PATH")
    if not kind.folder and colon:
        raise FileError(f"{name} comes with scikit-learn and takes no path")
    folder = Path(path).expanduser()
    if kind.folder and not folder.is_dir():
        raise FileError(f"{path}: no such folder")
    return kind, folder


def _classes(source: str, train: Tensor, validation: Tensor, test: Tensor) -> int:
    """Count the classes of the training split, and see that the others have no more."""
    for split, labels in (("training", train), ("validation", validation), ("test", test)):
        if not len(labels):
            raise FileError(f"{source}: the {split} split is empty")
        if int(labels.min()) < 0:
            raise FileError(f"{source}: a label of the {split} split is negative")
    classes = int(train.max()) + 1
    if int(max(validation.max(), test.max())) >= classes:
        raise FileError(f"{source}: the test or validation split has classes that training has not")
    return classes
