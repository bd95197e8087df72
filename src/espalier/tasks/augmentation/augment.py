"""What happens to training batches before the network sees them.

images ──crop to size──▶ mirror, shift ──▶ colour ──▶ a library's transform ──▶ normalise ──▶ mix ──▶ network
masks  ──crop to size──▶ mirror, shift ───────────────────────────────────────────────────────▶ loss
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core import EspalierError
from ..randomness import seeded_globally
from .colour import recoloured
from .geometry import shifted
from .mixing import mix, shares


class AugmentError(EspalierError):
    """An augmentation that cannot be: a strength out of range, or two images mixed where pixels have classes."""


@dataclass(frozen=True)
class Augment:
    """Random changes to training images, each image's own.

    Attributes:
        flip: mirror left to right with probability one half.
        pad: zeros added on every side before a crop back to the size at a random place; 0 shifts nothing.
        crop_area: smallest and largest share of the image's area in a random crop that is brought to size; (0.08, 1)
            is usual for ImageNet. None takes whole images.
        colour: brightness, contrast and saturation are scaled by factors up to this far from 1.
        mixup: alpha of mixup (0.2 is usual); 0 mixes nothing. Targets become shares of classes.
        cutmix: alpha of CutMix (1 is usual); where both are given, each batch gets one of them.
        transform: one of a library (``kornia.augmentation``, ``torchvision.transforms.v2``), called with a batch of
            images in [0, 1]. The random numbers that it takes from torch, numpy or Python follow from seed and epoch.
    """

    flip: bool = False
    pad: int = 0
    crop_area: tuple[float, float] | None = None
    colour: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.pad < 0 or not 0 <= self.colour <= 1 or self.mixup < 0 or self.cutmix < 0:
            raise AugmentError(f"{self}: pad, mixup and cutmix must be at least 0, and colour in [0, 1]")
        if self.crop_area is not None and not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise AugmentError(f"crop_area={self.crop_area}: two shares in (0, 1], the smaller one first")

    @property
    def mixes(self) -> bool:
        """Say whether targets become shares of classes."""
        return bool(self.mixup or self.cutmix)

    def move(self, images: Tensor, targets: Tensor, fill: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mirror and shift images (batch, channels, height, width), and targets with them where they are label maps.

        Args:
            images: bytes or floats.
            targets: (batch,), or (batch, height, width).
            fill: label of the pixels that a shift brings in.
            generator: of random numbers.
        """
        if not self.flip and not self.pad:
            return images, targets
        mirror = torch.rand(len(images), generator=generator) < (0.5 if self.flip else 0.0)
        offsets = torch.randint(0, 2 * self.pad + 1, (2, len(images)), generator=generator)
        if targets.dim() > 1:
            targets = shifted(targets, mirror, offsets, self.pad, fill)
        return shifted(images, mirror, offsets, self.pad), targets

    def recolour(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change the colours of images, and apply the library's transform."""
        if not self.colour and self.transform is None:
            return images
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        if self.colour:
            images = recoloured(images, self.colour, generator)
        if self.transform is not None:
            with seeded_globally(int(torch.randint(2**62, (), generator=generator))):
                images = self.transform(images)
        return images

    def mix(self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mix images with others of the batch; targets (batch,) become shares (batch, classes)."""
        if not self.mixes:
            return images, targets
        return mix(images, shares(targets, classes), (self.mixup, self.cutmix), generator)
