"""Arrow tables of images: a column of encoded images, and one of classes or of label maps.

Images are structs with a field ``bytes``, or plain bytes. Classes are integers or names. Label maps are images too, in
a column called mask, label_map, annotation, segmentation or label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core import FileError
from ..images import EncodedImages, open_image
from ..splits import Split, Splits, complete

_GREY = ("1", "L", "I;16")
_MASKS = ("mask", "label_map", "annotation", "segmentation", "label")


@dataclass(frozen=True)
class Names:
    """What images and targets are called, and the names of the classes where they are not numbers.

    Attributes:
        image, target: columns.
        classes: sorted names; None when targets are numbers or label maps.
        masks: targets are label maps.
    """

    image: str
    target: str
    classes: tuple[str, ...] | None = None
    masks: bool = False


def splits_of(
    place: str,
    tables: Mapping[str, Any],
    image_size: int | None,
    class_names: tuple[str, ...] = (),
    *,
    void: int | None = None,
) -> Splits:
    """Return the splits of tables called train, test and perhaps val.

    Args:
        place: where they are, for error messages.
        tables: pyarrow tables by split; all have the columns of ``train``.
        image_size: height and width to scale to; the first image's own when None.
        class_names: of integer targets, where they are known.
        void: label of pixels that are of no class.
    """
    names = _names(place, tables["train"])
    found = {split: _split(f"{place}/{split}", table, names, image_size) for split, table in tables.items()}
    known = names.classes or class_names
    return complete(found["train"], found.get("val"), found["test"], class_names=tuple(known), void=void)


def _names(place: str, table: Any) -> Names:
    """Find the image column and the target column by their types."""
    columns = [field for field in table.schema if not field.name.startswith("__")]
    images = [field.name for field in columns if _is_image(field.type)]
    masks = [name for name in _MASKS if name in images]
    labels = [field.name for field in columns if _is_label(field.type)]
    found = f"{place}: its columns are " + ", ".join(f"{field.name} ({field.type})" for field in columns)
    if masks and len(images) == 2:
        return Names(next(name for name in images if name != masks[0]), masks[0], masks=True)
    if not images:
        raise FileError(f"{found}; none is a struct with bytes, or bytes, for the images")
    if "label" in labels:
        labels = ["label"]
    if len(labels) != 1:
        raise FileError(f"{found}; exactly one must hold labels (integers or names), or be called 'label'")
    return Names(images[0], labels[0], _class_names(table.column(labels[0])))


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind)


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)


def _class_names(column: Any) -> tuple[str, ...] | None:
    from pyarrow import types

    return None if types.is_integer(column.type) else tuple(sorted(set(column.drop_null().to_pylist())))


def _split(place: str, table: Any, names: Names, image_size: int | None) -> Split:
    missing = [name for name in (names.image, names.target) if name not in table.column_names]
    if missing or not len(table):
        raise FileError(f"{place} has no column {missing[0]!r}" if missing else f"{place} has no rows")
    content, targets = table.column(names.image), table.column(names.target)
    if content.null_count or targets.null_count:
        raise FileError(f"{place} has rows without an image or without a {'mask' if names.masks else 'label'}")
    images = _images(place, content, image_size)
    shape = (images.channels, images.height, images.width)
    if names.masks:
        return Split(images, _masks(f"{place} ({names.target})", targets, images), shape)
    return Split(images, _numbers(place, targets.to_pylist(), names.classes), shape)


@dataclass(frozen=True, eq=False)
class _Content:
    """The bytes of one image of a column."""

    column: Any

    def __call__(self, row: int) -> bytes:
        value = self.column[row].as_py()
        content = value["bytes"] if isinstance(value, dict) else value
        if content is None and isinstance(value, dict) and value.get("path"):
            return _file(value["path"])
        return content or b""


@dataclass(frozen=True)
class _Row:
    """Where one image is, in words."""

    place: str

    def __call__(self, row: int) -> str:
        return f"{self.place}, row {row}"


def _file(path: str) -> bytes:
    """Read an image that a table names and does not hold."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise FileError(f"the table names the image {path}, which cannot be read: {error.strerror}") from error


def _images(place: str, content: Any, image_size: int | None) -> EncodedImages:
    """Take the first image's kind, and its size unless one is given, for all of them."""
    read, row = _Content(content), _Row(place)
    first = open_image(read(0), row(0))
    width, height = (image_size, image_size) if image_size else first.size
    channels = 1 if first.mode in _GREY else 3
    return EncodedImages(read, row, torch.arange(len(content)), channels, height, width, scale=image_size is not None)


def _masks(place: str, content: Any, images: EncodedImages) -> EncodedImages:
    return EncodedImages(
        _Content(content),
        _Row(place),
        torch.arange(len(content)),
        channels=1,
        height=images.height,
        width=images.width,
        scale=images.scale,
        labels=True,
    )


def _numbers(place: str, labels: list[Any], names: tuple[str, ...] | None) -> Tensor:
    if names is None:
        return torch.tensor(labels, dtype=torch.int64)
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise FileError(f"{place} has the class {unknown[0]!r}, which training has not")
    number = {name: index for index, name in enumerate(names)}
    return torch.tensor([number[label] for label in labels], dtype=torch.int64)
