"""Images and labels of one split, and the rule that sets validation aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .loader import Images


@dataclass(frozen=True, eq=False)
class Split:
    """Images (count, channels, height, width) and labels (count,)."""

    images: Images
    labels: Tensor
    shape: tuple[int, ...]  # of one image

    def pick(self, indices: Tensor) -> Split:
        """Return the images and labels at ``indices``."""
        images = self.images[indices] if isinstance(self.images, Tensor) else Picked(self.images, indices)
        return Split(images, self.labels[indices], self.shape)

    def divide(self, *shares: float) -> list[Split]:
        """Shuffle by ``numpy.random.default_rng(0)`` and divide; the first part gets what the ``shares`` leave.

        The shares are taken from the end, the last one last.
        """
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(self.labels)))
        sizes = [int(share * len(order)) for share in shares]
        return [self.pick(part) for part in order.split([len(order) - sum(sizes), *sizes])]


@dataclass(frozen=True, eq=False)
class Picked:
    """Some of the images of another source, still decoded when asked for."""

    images: Images
    indices: Tensor

    def __len__(self) -> int:
        """Return how many were picked."""
        return len(self.indices)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return the images at ``indices`` among the picked ones."""
        return self.images[self.indices[indices]]
