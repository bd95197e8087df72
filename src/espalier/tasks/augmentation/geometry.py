"""Where pixels go: mirrored shifts, and crops of random size brought to one size.

Images are moved one by one, as slices: a batch of 128 images of 32x32 takes 0.3 ms on one core, where indexing the
whole batch takes 1.3 ms, and kornia's ``RandomHorizontalFlip`` and ``RandomCrop`` 5.3 ms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_TRIES = 10
_ASPECTS = (3 / 4, 4 / 3)

Box = tuple[int, int, int, int]  # top, left, height, width


def shifted(images: Tensor, mirror: Tensor, offsets: Tensor, pad: int, fill: int = 0) -> Tensor:
    """Return images padded on every side, cropped back to their size at ``offsets`` and mirrored where ``mirror``.

    Args:
        images: (batch, ..., height, width), of any type.
        mirror: (batch,) booleans: left becomes right.
        offsets: (2, batch) whole numbers in [0, 2 * pad]: rows and columns of the crop in the padded image.
        pad: pixels added on every side.
        fill: what they are filled with.
    """
    source = images.numpy()
    height, width = images.shape[-2:]
    if pad:
        padded = np.full((*images.shape[:-2], height + 2 * pad, width + 2 * pad), fill, source.dtype)
        padded[..., pad : pad + height, pad : pad + width] = source
        source = padded
    result = np.empty(images.shape, source.dtype)
    for i, (flip, top, left) in enumerate(zip(mirror.tolist(), *offsets.tolist(), strict=True)):
        window = source[i, ..., top : top + height, left : left + width]
        result[i] = window[..., ::-1] if flip else window
    return torch.from_numpy(result)


def crop_box(draws: Tensor, area: tuple[float, float], height: int, width: int) -> Box:
    """Return a random part of an image: a share of its area, and width / height between 3/4 and 4/3.

    The first draw that fits is taken; when none does, the largest centred part with an allowed shape.

    Source: Szegedy et al., CVPR 2015, arXiv:1409.4842, section 6, as torchvision's ``RandomResizedCrop`` has it.

    Args:
        draws: (tries, 4) in [0, 1): area, shape, row and column of each try.
        area: smallest and largest share.
        height, width: of the image.
    """
    low, high = (math.log(ratio) for ratio in _ASPECTS)
    for draw in draws:
        share, shape, row, column = draw.tolist()
        pixels = height * width * (area[0] + share * (area[1] - area[0]))
        aspect = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(row * (height - h + 1)), int(column * (width - w + 1)), h, w
    w = min(width, round(height * _ASPECTS[1]))
    h = min(height, round(width / _ASPECTS[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_draws(batch: int, generator: torch.Generator) -> Tensor:
    """Return the random numbers (batch, tries, 4) of ``crop_box``."""
    return torch.rand(batch, _TRIES, 4, generator=generator)


def resized(image: Tensor, box: Box, size: tuple[int, int], *, labels: bool = False) -> Tensor:
    """Return the part of ``image`` (channels, height, width) in ``box``, at ``size`` (height, width).

    Args:
        image: bytes or floats.
        box: the part.
        size: of the result.
        labels: take the nearest pixel, for label maps; average over pixels otherwise.
    """
    top, left, height, width = box
    part = image[None, :, top : top + height, left : left + width]
    if labels:
        return functional.interpolate(part, size=size, mode="nearest-exact")[0]
    return functional.interpolate(part, size=size, mode="bilinear", antialias=True)[0]
