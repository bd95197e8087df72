"""Two images in one, with shares of two classes as its target."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .geometry import Box


def mixed(images: Tensor, targets: Tensor, lam: float, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Mixup: lam * x + (1 - lam) * x[partner], and the same of the targets.

    Source: Zhang et al., ICLR 2018, arXiv:1710.09412, section 2 and figure 1.

    Args:
        images: (batch, channels, height, width), floats.
        targets: (batch, classes), shares.
        lam: in [0, 1].
        partner: (batch,) indices.
    """
    return images[partner].lerp_(images, lam), targets[partner].lerp_(targets, lam)


def pasted(images: Tensor, targets: Tensor, box: Box, partner: Tensor) -> tuple[Tensor, Tensor]:
    """CutMix: the pixels in ``box`` come from ``x[partner]``, and of the targets the box's share of the area.

    Source: Yun et al., ICCV 2019, arXiv:1905.04899, section 3.1 and algorithm A1.

    Args:
        images: (batch, channels, ..., height, width), floats.
        targets: (batch, classes), shares.
        box: top, left, height, width.
        partner: (batch,) indices.
    """
    top, left, height, width = box
    images = images.clone()
    inside = (..., slice(top, top + height), slice(left, left + width))
    images[inside] = images[partner][inside]
    share = height * width / (images.shape[-2] * images.shape[-1])
    return images, torch.lerp(targets, targets[partner], share)


def cut_box(lam: float, row: float, column: float, size: tuple[int, int]) -> Box:
    """Return a box of 1 - lam of the area around a point; what is outside of the image is lost, as in the paper."""
    height, width = size
    half_height, half_width = (int(side * math.sqrt(1 - lam)) // 2 for side in size)
    middle_row, middle_column = int(row * height), int(column * width)
    top, bottom = max(middle_row - half_height, 0), min(middle_row + half_height, height)
    left, right = max(middle_column - half_width, 0), min(middle_column + half_width, width)
    return top, left, bottom - top, right - left


def mix(images: Tensor, targets: Tensor, alphas: tuple[float, float], generator: torch.Generator) -> tuple:
    """Apply mixup or CutMix to a batch, each half of the time where both are asked for.

    lam is drawn from Beta(alpha, alpha) once a batch, and partners are a permutation of it, as in both papers' code.

    Args:
        images: (batch, channels, height, width), floats.
        targets: (batch, classes), shares.
        alphas: of mixup and of CutMix; 0 leaves that one out.
        generator: of random numbers.
    """
    numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    partner = torch.from_numpy(numbers.permutation(len(images)))
    choice = 0 if not alphas[1] else 1 if not alphas[0] else int(numbers.integers(2))
    lam = float(numbers.beta(alphas[choice], alphas[choice]))
    if choice == 0:
        return mixed(images, targets, lam, partner)
    row, column = numbers.random(2)
    return pasted(images, targets, cut_box(lam, row, column, (images.shape[-2], images.shape[-1])), partner)


def shares(targets: Tensor, classes: int) -> Tensor:
    """Return classes (batch,) as shares (batch, classes): one, and zeros."""
    return functional.one_hot(targets, classes).float()
