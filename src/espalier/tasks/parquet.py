"""A folder of Parquet files: train.parquet and test.parquet (or several shards, train*.parquet), as hubs serve them.

One column holds the images, as a struct with a field ``bytes`` or as plain bytes; one holds the labels, as integers or
as names. What validation there is not (val*.parquet) is set aside from training: the last tenth of the rows in the
order of ``numpy.random.default_rng(0).permutation``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from espalier.core import FileError

from .images import EncodedImages, held, open_image
from .splits import Split


def read(path: Path, image_size: int | None) -> tuple[Split, Split, Split]:
    """Return train, validation and test."""
    tables = {split: _table(path, split) for split in ("train", "val", "test")}
    for split in ("train", "test"):
        if tables[split] is None:
            raise FileError(f"{path} has no {split}.parquet")
    image, label = _columns(path, tables["train"])
    names = _class_names(tables["train"].column(label))
    splits = {
        split: _split(f"{path}/{split}.parquet", table, (image, label), names, image_size)
        for split, table in tables.items()
        if table is not None
    }
    if "val" in splits:
        return splits["train"], splits["val"], splits["test"]
    train, validation = splits["train"].divide(0.1)
    return train, validation, splits["test"]


def _table(folder: Path, split: str) -> Any:
    """Read one split's files, in the order of their names; None when there are none."""
    files = sorted(folder.glob(f"{split}*.parquet"))
    if not files:
        return None
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise FileError(f"{folder} needs pyarrow: pip install 'espalier[data]'") from error
    try:
        return pyarrow.concat_tables(parquet.read_table(file) for file in files)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).split("\n")[0]
        raise FileError(f"{folder}: {split}*.parquet cannot be read: {reason}") from error


def _columns(path: Path, table: Any) -> tuple[str, str]:
    """Find the image column and the label column by their types."""
    from pyarrow import types

    def is_image(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    def is_label(kind: Any) -> bool:
        return types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)

    columns = [field for field in table.schema if not field.name.startswith("__")]
    images = [field.name for field in columns if is_image(field.type)]
    labels = [field.name for field in columns if is_label(field.type)]
    if "label" in labels:
        labels = ["label"]
    found = f"{path}: its columns are " + ", ".join(f"{field.name} ({field.type})" for field in columns)
    if not images:
        raise FileError(f"{found}; none is a struct with bytes, or bytes, for the images")
    if len(labels) != 1:
        raise FileError(f"{found}; exactly one must hold labels (integers or names), or be called 'label'")
    return images[0], labels[0]


def _class_names(column: Any) -> list[str] | None:
    """Return the sorted names of the classes; None when labels are numbers."""
    from pyarrow import types

    return None if types.is_integer(column.type) else sorted(set(column.drop_null().to_pylist()))


def _split(place: str, table: Any, columns: tuple[str, str], names: list[str] | None, image_size: int | None) -> Split:
    missing = [name for name in columns if name not in table.column_names]
    if missing or not len(table):
        raise FileError(f"{place} has no column {missing[0]!r}" if missing else f"{place} has no rows")
    content, labels = (table.column(name) for name in columns)
    if content.null_count or labels.null_count:
        raise FileError(f"{place} has rows without an image or without a label")
    images = _images(place, content, image_size)
    numbers = _numbers(place, labels.to_pylist(), names)
    shape = (images.channels, images.height, images.width)
    return Split(held(images, f"Decoding {place}"), torch.tensor(numbers, dtype=torch.int64), shape)


def _images(place: str, content: Any, image_size: int | None) -> EncodedImages:
    """Take the first image's kind, and its size unless one is given, for all of them."""
    inside = hasattr(content[0], "keys")  # a struct

    def read(row: int) -> bytes:
        return (content[row]["bytes"] if inside else content[row]).as_py() or b""

    first = open_image(read(0), f"{place}, row 0")
    width, height = (image_size, image_size) if image_size else first.size
    return EncodedImages(
        read,
        lambda row: f"{place}, row {row}",
        count=len(content),
        channels=1 if first.mode in ("1", "L", "I;16") else 3,
        height=height,
        width=width,
        scale=image_size is not None,
    )


def _numbers(place: str, labels: list[Any], names: list[str] | None) -> list[int]:
    if names is None:
        return labels
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise FileError(f"{place} has the class {unknown[0]!r}, which training has not")
    number = {name: index for index, name in enumerate(names)}
    return [number[label] for label in labels]
