"""Images by index: a tensor, or encoded files that are decoded when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ..core import FileError
from .augmentation.geometry import crop_box, resized
from .streaming import cores

_SMALL_PIXELS = 64 * 64  # threads cost more than they bring below
_LABEL_MODES = ("1", "L", "P")  # of images whose pixels are numbers of classes


class Images(Protocol):
    """Images by index: a tensor, or files that are decoded when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Crops:
    """A random part of every image of a batch: random numbers (batch, tries, 4), and the range of its area."""

    draws: Tensor
    area: tuple[float, float]

    def apply(self, number: int, image: Tensor, size: tuple[int, int], *, labels: bool) -> Tensor:
        """Return the part of image number ``number`` of the batch, at ``size``."""
        box = crop_box(self.draws[number], self.area, image.shape[1], image.shape[2])
        return resized(image, box, size, labels=labels)


def read(images: Images, indices: Tensor, crops: Crops | None = None, *, labels: bool = False) -> Tensor:
    """Return the images at ``indices`` (batch, channels, height, width), or random parts of them at the same size."""
    if crops is None:
        return images[indices]
    if isinstance(images, EncodedImages):
        return images.cropped(indices, crops)
    whole = images[indices]
    size = (whole.shape[2], whole.shape[3])
    return torch.stack([crops.apply(i, image, size, labels=labels) for i, image in enumerate(whole)])


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images as the bytes of their files.

    Attributes:
        content: returns the bytes of one image; worker processes get a copy, so it must be picklable.
        place: says where one image is, for error messages.
        rows: (count,) which of them, in which order.
        channels: 1 (grey, or label maps) or 3.
        height, width: of every image.
        scale: scale images of another size so that they cover it, and crop them at their centre; refuse them if false.
        labels: pixels are numbers of classes: they are copied, never averaged.
    """

    content: Callable[[int], bytes]
    place: Callable[[int], str]
    rows: Tensor
    channels: int
    height: int
    width: int
    scale: bool = True
    labels: bool = False

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode the images at ``indices`` (batch,) to bytes (batch, channels, height, width)."""
        return self._each(lambda number, row: _pixels(self._fitted(row)), indices)

    def cropped(self, indices: Tensor, crops: Crops) -> Tensor:
        """Decode the images at ``indices`` and return random parts of them, of the same shape as whole ones."""

        def part(number: int, row: int) -> Tensor:
            whole = _pixels(self._open(row))
            return crops.apply(number, whole, (self.height, self.width), labels=self.labels)

        return self._each(part, indices)

    def pick(self, indices: Tensor) -> EncodedImages:
        """Return the images at ``indices``, still encoded."""
        return replace(self, rows=self.rows[indices])

    def digest(self) -> str:
        """Return a hash of everything that the decoded images depend on but the decoder."""
        shape = f"{self.channels}x{self.height}x{self.width} {self.scale} {self.labels}"
        digest = hashlib.sha256(shape.encode())
        for row in self.rows.tolist():
            content = self.content(row)
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        return digest.hexdigest()

    @property
    def decoded_bytes(self) -> int:
        """The memory that all of them take when they are decoded."""
        return len(self) * self.channels * self.height * self.width

    def _each(self, decode: Callable[[int, int], Tensor], indices: Tensor) -> Tensor:
        rows = self.rows[indices].tolist()
        if self.height * self.width <= _SMALL_PIXELS or get_worker_info() is not None:
            return torch.stack([decode(number, row) for number, row in enumerate(rows)])
        with ThreadPoolExecutor(cores()) as pool:  # decoding leaves Python's lock
            return torch.stack(list(pool.map(decode, range(len(rows)), rows)))

    def _open(self, row: int) -> Any:
        image = open_image(self.content(row), self.place(row))
        if self.labels:
            if image.mode not in _LABEL_MODES:
                raise FileError(f"{self.place(row)} is no label map: its pixels are {image.mode}, not one small number")
        else:
            image = image.convert("L" if self.channels == 1 else "RGB")
        if not self.scale and image.size != (self.width, self.height):
            raise FileError(
                f"{self.place(row)} is {image.width}x{image.height} and others are {self.width}x{self.height}; "
                "give an image_size to scale them to"
            )
        return image

    def _fitted(self, row: int) -> Any:
        image = self._open(row)
        if image.size == (self.width, self.height):
            return image
        from PIL import Image, ImageOps

        method = Image.Resampling.NEAREST if self.labels else Image.Resampling.BICUBIC
        return ImageOps.fit(image, (self.width, self.height), method)


def _pixels(image: Any) -> Tensor:
    """Return (channels, height, width) bytes."""
    pixels = np.array(image, np.uint8)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def open_image(content: bytes, place: str) -> Any:
    """Open and decode one image.

    Raises:
        FileError: pillow is not installed, or these bytes are no image that it can read.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise FileError(f"{place} needs pillow: pip install 'espalier[data]'") from error
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(f"{place} is not an image that can be read: {error}") from error
    return image
