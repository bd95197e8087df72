"""Augmentation of whole batches, as tensor operations."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Augment:
    """Mirror half of the images, then shift each by up to ``pad`` pixels.

    Attributes:
        flip: mirror left to right with probability one half.
        pad: zeros added on every side before a crop back to the size at a random place; 0 shifts nothing.
    """

    flip: bool
    pad: int

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented copies of ``images`` (batch, channels, height, width)."""
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return _shift(images, self.pad, generator) if self.pad else images


def _shift(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    padded = functional.pad(images, [pad] * 4)
    top, left = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator)
    rows = (top[:, None] + torch.arange(height))[:, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, :]
    return padded[torch.arange(batch)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()
