"""PASCAL VOC's segmentation, in the development kit's own layout: 21 classes, background included, and 255 for void.

PATH/JPEGImages/NAME.jpg   PATH/SegmentationClass/NAME.png   PATH/ImageSets/Segmentation/{train,val}.txt

PATH is a VOC20xx folder, or holds one as VOCdevkit/VOC20xx or VOC20xx. The benchmark's own test labels are not public:
its val list is the test split here, and validation is set aside from training.

Source: Everingham et al., The PASCAL Visual Object Classes Challenge 2011 (VOC2011).
"""

from __future__ import annotations

from pathlib import Path

import torch

from ...core import FileError
from ..images import EncodedImages
from ..splits import Split, Splits, complete
from .paths import Files

NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table",
    "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor",
)  # fmt: skip
VOID = 255
_DEFAULT_SIZE = 256
_LISTS = Path("ImageSets") / "Segmentation"


def read(path: Path, image_size: int | None) -> Splits:
    """Return train, validation and test, whose images wait in their files; all are scaled to one size.

    Raises:
        FileError: there is no such layout here, or a list names a file that is not there.
    """
    folder = _found(path)
    size = image_size or _DEFAULT_SIZE
    train, test = (_split(folder, name, size) for name in ("train", "val"))
    return complete(train, None, test, class_names=NAMES, void=VOID)


def _found(path: Path) -> Path:
    """Return the VOC20xx folder; the newest where there are several."""
    places = [path, *sorted((*path.glob("VOC20*"), *path.glob("VOCdevkit/VOC20*")), key=lambda one: one.name)[::-1]]
    for place in places:
        if (place / _LISTS / "train.txt").is_file():
            return place
    raise FileError(f"{path} has no {_LISTS / 'train.txt'}, nor a VOC20xx folder that has")


def _split(folder: Path, name: str, size: int) -> Split:
    file = folder / _LISTS / f"{name}.txt"
    try:
        names = tuple(file.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file} cannot be read: {error}") from error
    if not names:
        raise FileError(f"{file} names no image")
    images = Files(tuple(str(folder / "JPEGImages" / f"{one}.jpg") for one in names))
    masks = Files(tuple(str(folder / "SegmentationClass" / f"{one}.png") for one in names))
    for path in (*images.paths, *masks.paths):
        if not Path(path).is_file():
            raise FileError(f"{file} names {Path(path).stem!r}, and {path} is not there")
    rows = torch.arange(len(names))
    return Split(
        EncodedImages(images.content, images.place, rows, 3, size, size),
        EncodedImages(masks.content, masks.place, rows, 1, size, size, labels=True),
        (3, size, size),
    )
