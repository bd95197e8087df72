"""From pixels to what networks read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalise:
    """(x - mean) / std, a channel; ``x`` in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised float images; bytes are brought to [0, 1] first."""
        mean, std = (torch.tensor(values).view(-1, *[1] * (images.dim() - 2)) for values in (self.mean, self.std))
        if images.dtype == torch.uint8:
            return images.float().div_(255).sub_(mean).div_(std)
        return (images - mean).div_(std)


IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Normalise((0.449,), (0.226,))  # the averages of the three


def as_is(images: Tensor) -> Tensor:
    """Leave inputs as they are."""
    return images
