"""A folder a class: PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg (and test), or PATH/CLASS/*.jpg alone.

With train, val and test, each is what its name says. With train and val only (as ImageNet comes), val is the test
split, and validation is set aside from training: the test split is for the end alone. A lone folder is divided 8:1:1.
What is set aside follows the order of ``numpy.random.default_rng(0).permutation`` on the sorted files.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ...core import FileError
from ..images import EncodedImages
from ..splits import VALIDATION_SHARE, Split, Splits, complete
from .paths import Files

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_DEFAULT_SIZE = 224
_VALIDATION = ("val", "validation", "valid")


def read(path: Path, image_size: int | None) -> Splits:
    """Return train, validation and test, whose images wait in their files."""
    size = image_size or _DEFAULT_SIZE
    if not (path / "train").is_dir():
        classes = _classes(path)
        train, validation, test = _split(path, classes, size).divide(VALIDATION_SHARE, VALIDATION_SHARE)
        return Splits(train=train, validation=validation, test=test, class_names=tuple(classes))
    classes = _classes(path / "train")
    train = _split(path / "train", classes, size)
    val = next((_split(path / name, classes, size) for name in _VALIDATION if (path / name).is_dir()), None)
    test = _split(path / "test", classes, size) if (path / "test").is_dir() else None
    if test is None:
        val, test = None, val
    if test is None:
        raise FileError(f"{path} has train/ but neither val/ nor test/")
    return complete(train, val, test, class_names=tuple(classes))


def _classes(folder: Path) -> list[str]:
    classes = sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not classes:
        raise FileError(f"{folder} has no folder a class in it")
    return classes


def _split(folder: Path, classes: list[str], size: int) -> Split:
    unknown = sorted(set(_classes(folder)) - set(classes))
    if unknown:
        raise FileError(f"{folder} has the class {unknown[0]!r}, which training has not")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in _SUFFIXES)
        files += found
        labels += [label] * len(found)
    if not files:
        raise FileError(f"{folder} has no images ({', '.join(sorted(_SUFFIXES))}) in its class folders")
    named = Files(tuple(map(str, files)))
    images = EncodedImages(named.content, named.place, torch.arange(len(files)), 3, size, size)
    return Split(images, torch.tensor(labels), (3, size, size))
