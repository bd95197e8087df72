"""Images by index: a tensor, or encoded files that are decoded when asked for."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Protocol, Self

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
    """A random part of every image or video of a batch.

    Attributes:
        draws: (batch, tries, 4) random numbers in [0, 1), of ``crop_box``.
        area: the range of a part's share of the area.
        times: (batch,) random numbers in [0, 1]: how far from its first possible moment a part of a video begins.
    """

    draws: Tensor
    area: tuple[float, float]
    times: Tensor

    def apply(self, number: int, image: Tensor, size: tuple[int, int], *, labels: bool) -> Tensor:
        """Return the part of image number ``number`` of the batch, at ``size``."""
        box = crop_box(self.draws[number], self.area, image.shape[1], image.shape[2])
        return resized(image, box, size, labels=labels)


def read(images: Images, indices: Tensor, crops: Crops | None = None, *, labels: bool = False) -> Tensor:
    """Return the images at ``indices`` (batch, channels, height, width), or random parts of them at the same size."""
    if crops is None:
        return images[indices]
    if isinstance(images, Encoded):
        return images.cropped(indices, crops)
    whole = images[indices]
    size = (whole.shape[-2], whole.shape[-1])
    flat = whole.flatten(1, -3)  # the frames of a video are cropped alike
    return torch.stack([crops.apply(i, image, size, labels=labels) for i, image in enumerate(flat)]).view(whole.shape)


@dataclass(frozen=True, eq=False)
class Encoded(ABC):
    """Images or videos as the bytes of their files.

    Attributes:
        content: returns the bytes of one; worker processes get a copy, so it must be picklable.
        place: says where one is, for error messages.
        rows: (count,) which of them, in which order.
    """

    content: Callable[[int], bytes]
    place: Callable[[int], str]
    rows: Tensor

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one when it is decoded: channels first, height and width last."""

    @property
    def cropping(self) -> bool:
        """Whether a file may be larger than ``shape``, and a part of it is then taken."""
        return True

    @abstractmethod
    def settings(self) -> str:
        """Return all that the decoded bytes depend on beside the files and the decoder."""

    @abstractmethod
    def decoder(self) -> str:
        """Name what decodes: decoders differ in the last bit."""

    @abstractmethod
    def whole(self, row: int) -> Tensor:
        """Decode one, scaled so that it covers ``shape``, and cropped at its centre."""

    @abstractmethod
    def part(self, number: int, row: int, crops: Crops) -> Tensor:
        """Decode the part of one that number ``number`` of the crops says, at ``shape``."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode those at ``indices`` (batch,) to bytes (batch, *shape)."""
        return self._each(lambda number, row: self.whole(row), indices)

    def cropped(self, indices: Tensor, crops: Crops) -> Tensor:
        """Decode those at ``indices`` and return random parts of them, of the same shape as whole ones."""
        return self._each(lambda number, row: self.part(number, row, crops), indices)

    def pick(self, indices: Tensor) -> Self:
        """Return those at ``indices``, still encoded."""
        return replace(self, rows=self.rows[indices])

    def digest(self) -> str:
        """Return a hash of everything that the decoded bytes depend on but the decoder."""
        digest = hashlib.sha256(self.settings().encode())
        for row in self.rows.tolist():
            content = self.content(row)
            digest.update(len(content).to_bytes(8, "little"))
            digest.update(content)
        return digest.hexdigest()

    @property
    def decoded_bytes(self) -> int:
        """The memory that all of them take when they are decoded."""
        return len(self) * math.prod(self.shape)

    def _each(self, decode: Callable[[int, int], Tensor], indices: Tensor) -> Tensor:
        rows = self.rows[indices].tolist()
        if math.prod(self.shape[1:]) <= _SMALL_PIXELS or get_worker_info() is not None:
            return torch.stack([decode(number, row) for number, row in enumerate(rows)])
        with ThreadPoolExecutor(cores()) as pool:  # decoding leaves Python's lock
            return torch.stack(list(pool.map(decode, range(len(rows)), rows)))


@dataclass(frozen=True, eq=False)
class EncodedImages(Encoded):
    """Images as the bytes of their files.

    Attributes:
        channels: 1 (grey, or label maps) or 3.
        height, width: of every image.
        scale: scale images of another size so that they cover it, and crop them at their centre; refuse them if false.
        labels: pixels are numbers of classes: they are copied, never averaged.
    """

    channels: int
    height: int
    width: int
    scale: bool = True
    labels: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height, width."""
        return self.channels, self.height, self.width

    @property
    def cropping(self) -> bool:
        """Whether a file may be larger than ``shape``."""
        return self.scale

    def settings(self) -> str:
        """Return all that the decoded bytes depend on beside the files and the decoder."""
        return f"{self.channels}x{self.height}x{self.width} {self.scale} {self.labels}"

    def decoder(self) -> str:
        """Return pillow's version, and that of its JPEG library."""
        pillow = _pillow(self.place(0))
        from PIL import features

        return f"1 pillow {pillow.__version__} jpeg {features.version('jpg')}"

    def whole(self, row: int) -> Tensor:
        """Decode one at its size."""
        image = self._open(row)
        if image.size == (self.width, self.height):
            return _pixels(image)
        from PIL import Image, ImageOps

        method = Image.Resampling.NEAREST if self.labels else Image.Resampling.BICUBIC
        return _pixels(ImageOps.fit(image, (self.width, self.height), method))

    def part(self, number: int, row: int, crops: Crops) -> Tensor:
        """Decode a part of one at its size."""
        return crops.apply(number, _pixels(self._open(row)), (self.height, self.width), labels=self.labels)

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


def _pixels(image: Any) -> Tensor:
    """Return (channels, height, width) bytes."""
    pixels = np.array(image, np.uint8)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def open_image(content: bytes, place: str) -> Any:
    """Open and decode one image.

    Raises:
        FileError: pillow is not installed, or these bytes are no image that it can read.
    """
    Image = _pillow(place)
    try:
        image = Image.open(BytesIO(content))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileError(f"{place} is not an image that can be read: {error}") from error
    return image


def _pillow(place: str) -> Any:
    """Return ``PIL.Image``.

    Raises:
        FileError: pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise FileError(f"{place} needs pillow: pip install 'espalier[data]'") from error
    return Image
