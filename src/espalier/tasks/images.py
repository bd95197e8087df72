"""Encoded images, decoded when asked for, or all at once when they are small."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from espalier.core import FileError

from .loader import Images

_IN_MEMORY_BYTES = 1 << 30
_SMALL_PIXELS = 64 * 64  # threads cost more than they bring below
_CHUNK = 1024  # images a step of the progress bar


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images as the bytes of their files.

    Attributes:
        read: returns the bytes of one image.
        place: says where one image is, for error messages.
        count: how many there are.
        channels: 1 (grey) or 3.
        height, width: of every image.
        scale: scale images of another size so that they cover it, and crop them at their centre; refuse them if false.
    """

    read: Callable[[int], bytes]
    place: Callable[[int], str]
    count: int
    channels: int
    height: int
    width: int
    scale: bool = True

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.count

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decode the images at ``indices`` (n,) to bytes (n, channels, height, width)."""
        if self.height * self.width <= _SMALL_PIXELS:
            return torch.stack([self._decode(index) for index in indices.tolist()])
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding leaves Python's lock
            return torch.stack(list(pool.map(self._decode, indices.tolist())))

    def _decode(self, index: int) -> Tensor:
        image = open_image(self.read(index), self.place(index)).convert("L" if self.channels == 1 else "RGB")
        if image.size != (self.width, self.height):
            if not self.scale:
                raise FileError(
                    f"{self.place(index)} is {image.width}x{image.height} and others are {self.width}x{self.height}; "
                    "give an image_size to scale them to"
                )
            from PIL import ImageOps

            image = ImageOps.fit(image, (self.width, self.height))
        pixels = torch.from_numpy(np.array(image))
        return pixels[None] if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()


def open_image(content: bytes, place: str):
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


def held(images: EncodedImages, what: str) -> Images:
    """Return the images decoded if all of them fit in 1 GiB, with a progress bar on a terminal; else as they are."""
    if images.count * images.channels * images.height * images.width > _IN_MEMORY_BYTES:
        return images
    chunks = torch.arange(images.count).split(_CHUNK)
    bar = track(chunks, what, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    return torch.cat([images[chunk] for chunk in bar])
