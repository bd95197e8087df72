"""Tasks by name: ``digits``, ``parquet:PATH``, ``imagefolder:PATH``, ..., or ``path/to/file.py:function``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core import FileError, KindError, UnknownNameError
from ..core.user_file import is_user_file
from .augmentation.augment import Augment
from .build import Loading, build
from .normalise import Normalise
from .own import Data, task_in_file, task_of
from .sources import (
    cifar,
    digits,
    hmdb51,
    huggingface,
    idx,
    imagefolder,
    moving_digits,
    parquet,
    scenes,
    ucf101,
    voc,
)
from .splits import Splits
from .storage import Storage
from .task import Task

_IMAGENET_CROPS = Augment(flip=True, crop_area=(0.08, 1.0))
_VIDEO_CROPS = Augment(flip=True, crop_area=(0.3, 1.0))  # and a random moment


@dataclass(frozen=True)
class _Source:
    """Where splits come from: ``read(path, image_size)``, and whether it reads a folder; or what makes the task.

    ``lists`` is how many pairs of training and test lists there are, of which ``read`` takes a number.
    """

    read: Callable[..., Splits] | None
    folder: bool = True
    normalise: Normalise | None = None
    augment: Augment | None = None
    task: Callable[[Loading, int | None], Task] | None = None
    lists: int = 0


def _cifar(layout: cifar.Layout) -> Callable[[Path, int | None], Splits]:
    def read(path: Path, image_size: int | None) -> Splits:
        folder = cifar.find(path, layout)
        if folder is None:
            return _tables(path, image_size, f"{layout.folder}/{layout.train[0]}", layout.class_names)
        if image_size not in (None, 32):
            raise FileError(f"CIFAR's images are 32x32; image_size={image_size} does not apply")
        return cifar.read(folder, layout)

    return read


def _mnist(path: Path, image_size: int | None) -> Splits:
    folder = idx.find(path)
    if folder is None:
        return _tables(path, image_size, "train-images-idx3-ubyte", ())
    if image_size not in (None, 28):
        raise FileError(f"MNIST's images are 28x28; image_size={image_size} does not apply")
    return idx.read(folder)


def _tables(path: Path, image_size: int | None, other: str, class_names: tuple[str, ...]) -> Splits:
    if not parquet.has_tables(path):
        raise FileError(f"{path} has neither train.parquet nor torchvision's {other}")
    return replace(parquet.read(path, image_size), class_names=class_names)


_SOURCES = {
    "digits": _Source(digits.read, folder=False, normalise=digits.NORMALISE, augment=Augment(flip=False, pad=1)),
    "moving_digits": _Source(
        moving_digits.read, folder=False, normalise=moving_digits.NORMALISE, augment=Augment(flip=False)
    ),
    "scenes": _Source(None, folder=False, task=scenes.task),
    "mnist": _Source(_mnist, normalise=idx.NORMALISE, augment=Augment(flip=False, pad=2)),
    "cifar10": _Source(_cifar(cifar.CIFAR10)),
    "cifar100": _Source(_cifar(cifar.CIFAR100)),
    "camvid": _Source(parquet.camvid),
    "voc": _Source(voc.read),
    "parquet": _Source(parquet.read),
    "imagefolder": _Source(imagefolder.read, augment=_IMAGENET_CROPS),
    "huggingface": _Source(huggingface.read),
    "ucf101": _Source(ucf101.read, augment=_VIDEO_CROPS, lists=3),
    "hmdb51": _Source(hmdb51.read, augment=_VIDEO_CROPS, lists=3),
}
_NAMES = [name + (":PATH" if source.folder else "") for name, source in _SOURCES.items()] + ["path/to/file.py:function"]


def load_task(
    source: str | Data | Mapping[str, Any],
    *,
    batch_size: int = 128,
    seed: int = 0,
    image_size: int | None = None,
    normalise: Normalise | None = None,
    augment: Augment | None = None,
    storage: Storage | None = None,
) -> Task:
    """Load a task: three splits, loss and metrics.

    >>> task = load_task("digits")
    >>> task.classes, task.input_shape, task.metric, len(task.train.targets)
    (10, (1, 8, 8), 'accuracy', 1259)

    Args:
        source: one of

            - ``digits``: scikit-learn's, 8x8;
            - ``moving_digits``: short videos of them, 8x32x32; the class is the motion;
            - ``scenes``: the same, strewn over pictures of 64x64, to be found;
            - ``mnist:PATH``, ``cifar10:PATH``, ``cifar100:PATH``: torchvision's cache, or a folder of Parquet files;
            - ``parquet:PATH``: a folder with train.parquet and test.parquet, of images and classes or label maps;
            - ``camvid:PATH``: the same, label maps of eleven classes and 11 for void;
            - ``voc:PATH``: PASCAL VOC's segmentation, the development kit's folder;
            - ``imagefolder:PATH``: a folder a class, inside train/ and val/ or alone;
            - ``huggingface:PATH``: what ``datasets`` saved to disk;
            - ``ucf101:PATH``, ``hmdb51:PATH``: videos with their own lists, the first of three; ``PATH#2`` takes the
              second. Clips of 16 frames, every fourth one;
            - ``path/to/file.py:function``: your own, which returns a ``Task``, a ``Data``, or (train, validation,
              test); or a ``Data`` or a Hugging Face ``DatasetDict`` itself.
        batch_size: images a batch, in all splits.
        seed: of the training order and augmentation. The splits do not depend on it.
        image_size: height and width to scale to; a parquet's own size, 224 for image folders, or 112 for videos, when
            None.
        normalise: mean and standard deviation a channel; ImageNet's when None (their average for grey images).
        augment: for training. By default colour images are mirrored and shifted by an eighth, grey ones only shifted,
            and images from folders are mirrored and cropped at random.
        storage: how much is held in memory, and where decoded images are cached.

    Raises:
        KindError: an argument is of another kind, or out of range.
        UnknownNameError: no such source, or no such function.
        FileError: the data is missing, or cannot be read as images with labels.
    """
    _check_number("examples a batch", batch_size, 1)
    _check_number("seed", seed, 0)
    _check_number("pixels as image_size", 1 if image_size is None else image_size, 1)
    for kind, given in ((Normalise, normalise), (Augment, augment), (Storage, storage)):
        if given is not None and not isinstance(given, kind):
            raise KindError(f"load_task takes a tasks.{kind.__name__} as {kind.__name__.lower()}, not {given!r}")
    loading = Loading(
        batch_size=batch_size, seed=seed, normalise=normalise, augment=augment, storage=storage or Storage()
    )
    found = task_in_file(source, loading, image_size) if isinstance(source, str) and is_user_file(source) else source
    name = source if isinstance(source, str) else "data"
    if isinstance(found, Task):
        return found
    if isinstance(found, Data):
        return task_of(name, found, loading)
    if not isinstance(found, str):
        return build(name, huggingface.splits(found, name, image_size), loading)
    kind, path, lists = _parse(found)
    if kind.task is not None:
        return kind.task(loading, image_size)
    assert kind.read is not None
    loading = replace(loading, normalise=normalise or kind.normalise, augment=augment or kind.augment)
    return build(name, kind.read(path, image_size, *lists), loading)


def _check_number(what: str, given: Any, least: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise KindError(f"load_task takes a whole number for {what}, at least {least}, not {given!r}")


def _parse(source: str) -> tuple[_Source, Path, tuple[int, ...]]:
    """Return the source, its folder, and the number of its lists where it has several."""
    name, colon, path = source.partition(":")
    if name not in _SOURCES:
        raise UnknownNameError("data source", name, _NAMES)
    kind = _SOURCES[name]
    if kind.folder and not path:
        raise FileError(f"{name} needs a folder: {name}:PATH")
    if not kind.folder and colon:
        raise FileError(f"{name} comes with scikit-learn and takes no path")
    number = "1"
    if kind.lists:
        path, _, number = path.rpartition("#") if "#" in path else (path, "", "1")
        if number not in map(str, range(1, kind.lists + 1)):
            raise FileError(f"{source}: after # comes the number of its lists, 1 to {kind.lists}")
    folder = Path(path).expanduser()
    if kind.folder and not folder.is_dir():
        raise FileError(f"{path}: no such folder")
    return kind, folder, (int(number),) if kind.lists else ()
