"""MNIST as torchvision leaves it: train-images-idx3-ubyte and three more, plain or .gz.

Fashion-MNIST, KMNIST and QMNIST's like come in the same files.

Source: LeCun et al., "The MNIST database of handwritten digits", 1998, whose page defines the format: two zero bytes,
the type (8: bytes), the number of dimensions, each dimension as four bytes (big endian), then the numbers.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core import FileError
from ..normalise import Normalise
from ..splits import Split, Splits, complete

NORMALISE = Normalise((0.1307,), (0.3081,))  # of MNIST's training split, as in PyTorch's example
_PLACES = ("", "raw", "MNIST/raw")
_BYTES = b"\0\0\x08"
_MOST = 1 << 31  # bytes of one file when it is unpacked


def find(folder: Path) -> Path | None:
    """Return where the four files lie: in the folder, in its raw, or in its MNIST/raw; None if nowhere."""
    places = (folder / place for place in _PLACES)
    return next((place for place in places if any(place.glob("train-images*idx3-ubyte*"))), None)


def read(folder: Path) -> Splits:
    """Return train, validation and test."""
    return complete(_split(folder, "train"), None, _split(folder, "t10k"))


def _split(folder: Path, name: str) -> Split:
    images = _numbers(folder, f"{name}-images-idx3-ubyte", 3)[:, None]
    labels = _numbers(folder, f"{name}-labels-idx1-ubyte", 1).long()
    if len(images) != len(labels):
        raise FileError(f"{folder}: {name} has {len(images)} images and {len(labels)} labels")
    return Split(images, labels, tuple(images.shape[1:]))


def _numbers(folder: Path, name: str, dimensions: int) -> Tensor:
    """Read one file, whole."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise FileError(f"{folder} has no {name}, nor {name}.gz")
    content = _content(path)
    header = 4 + 4 * dimensions
    if content[:4] != _BYTES + bytes([dimensions]) or len(content) < header:
        raise FileError(f"{path} is no IDX file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(content, ">u4", dimensions, 4).tolist()
    if math.prod(shape) != len(content) - header:
        raise FileError(f"{path} is damaged: it says {shape} and holds {len(content) - header} numbers")
    return torch.from_numpy(np.frombuffer(content, np.uint8, -1, header).reshape(shape).copy())


def _content(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            content = file.read(_MOST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    if len(content) > _MOST:
        raise FileError(f"{path} unpacks to more than {_MOST} bytes")
    return content
