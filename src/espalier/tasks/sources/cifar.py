"""CIFAR-10 and CIFAR-100 as torchvision leaves them: cifar-10-batches-py and cifar-100-python, read without pickle.

Their files are pickles, and unpickling runs whatever a file says. Here nothing is run: the opcodes are listed, and of
their arguments two things are taken, the one string as long as the images and the whole numbers after the key of the
labels.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009; the format is described on its page.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import FileError
from ..splits import Split, Splits, complete

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_STRINGS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_NUMBERS = ("BININT", "BININT1", "BININT2", "INT", "LONG1")


@dataclass(frozen=True)
class Layout:
    """Where one data set keeps what.

    Attributes:
        folder: in torchvision's root.
        train, test: files.
        meta: file with the names of the classes.
        labels, names: keys in those files.
        class_names: where meta is not there; empty where they are too many to say.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str
    class_names: tuple[str, ...] = ()


CIFAR10 = Layout(
    "cifar-10-batches-py",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    ("test_batch",),
    "batches.meta",
    "labels",
    "label_names",
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
CIFAR100 = Layout("cifar-100-python", ("train",), ("test",), "meta", "fine_labels", "fine_label_names")


def find(root: Path, layout: Layout) -> Path | None:
    """Return the folder of the files: below torchvision's root, or the root itself; None if neither."""
    places = (root / layout.folder, root)
    return next((place for place in places if (place / layout.train[0]).is_file()), None)


def read(folder: Path, layout: Layout) -> Splits:
    """Return train, validation and test."""
    train, test = (_split([folder / name for name in names], layout.labels) for names in (layout.train, layout.test))
    meta = folder / layout.meta
    names = _following(_opcodes(meta), layout.names, _STRINGS) if meta.is_file() else layout.class_names
    return complete(train, None, test, class_names=tuple(names))


def _split(files: list[Path], key: str) -> Split:
    parts = [_file(path, key) for path in files]
    return Split(torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts]), _SHAPE)


def _file(path: Path, key: str) -> tuple[Tensor, Tensor]:
    """Return the images and labels of one file."""
    opcodes = _opcodes(path)
    labels = _following(opcodes, key, _NUMBERS)
    data = [value for name, value in opcodes if name in _STRINGS + _BYTES and len(value) == _PIXELS * len(labels)]
    if not labels or len(data) != 1:
        raise FileError(f"{path} is no batch of CIFAR: it has {len(labels)} {key}, and no images for them")
    content = data[0] if isinstance(data[0], bytes) else data[0].encode("latin-1")
    images = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, *_SHAPE).copy())
    return images, torch.tensor(labels)


def _opcodes(path: Path) -> list[tuple[str, Any]]:
    """List a pickle's opcodes with their arguments; none is carried out."""
    try:
        return [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(path.read_bytes())]
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read as a batch of CIFAR: {error}") from error


def _following(opcodes: list[tuple[str, Any]], key: str, kinds: tuple[str, ...]) -> list[Any]:
    """Return the values of the list that follows a key."""
    rest = iter(opcodes)
    if not any(name in _STRINGS and value == key for name, value in rest):
        return []
    return list(_items(rest, kinds))


def _items(opcodes: Iterator[tuple[str, Any]], kinds: tuple[str, ...]) -> Iterator[Any]:
    """Yield the items of one list, which grows by portions: MARK, items, APPENDS."""
    whole = False
    for name, value in opcodes:
        if whole and name != "MARK":
            return
        whole = name == "APPENDS"
        if name in kinds:
            yield value
