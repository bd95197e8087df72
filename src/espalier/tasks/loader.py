"""Batches of images with labels or label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .augmentation.augment import Augment, AugmentError
from .augmentation.geometry import crop_draws
from .images import Crops, Images, read
from .normalise import IMAGENET
from .randomness import seeded
from .streaming import batches, check_ranks

_IGNORED = -100  # PyTorch's own number that no label has
_TIME = 1  # of the random numbers that say when a part of a video begins


@dataclass(eq=False)
class Loader:
    """Iterate over ``(x, y)`` batches; every pass is one epoch, in an order that the seed and its number decide.

    Attributes:
        images: (count, channels, height, width), bytes or floats in [0, 1], or anything that gives those by index.
        targets: (count,) classes, or label maps (count, 1, height, width) in the same ways as images.
        normalise: applied to every batch.
        batch_size: images a batch over all ranks; the last one is smaller.
        shuffle: a new order every epoch, for training; a last batch of a single image a rank, which batch norm cannot
            train on, is left out.
        augment: applied to every batch. Batch number n of an epoch is augmented alike whatever came before it.
        seed: of the order and of the augmentation.
        epoch: the number of the next pass; set it to go on where another run stopped.
        classes: how many there are; needed where images are mixed.
        void: label of the pixels that a shift brings into a label map; they are ignored by the loss in any case.
        workers: processes that make batches ahead; 0 makes each when it is asked for.
        rank, ranks: this loader yields every ``ranks``-th image of each batch, from number ``rank`` on.
    """

    images: Images = field(repr=False)
    targets: Images = field(repr=False)
    normalise: Callable[[Tensor], Tensor] = IMAGENET
    batch_size: int = 128
    shuffle: bool = False
    augment: Augment | None = None
    seed: int = 0
    epoch: int = 0
    classes: int = 0
    void: int | None = None
    workers: int = 0
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        """Refuse batches too small to be shared, and to mix what has no single class or an unknown number of them."""
        check_ranks(len(self.targets), self.batch_size, self.ranks, training=self.shuffle)
        if self.augment is None or not self.augment.mixes:
            return
        if self.segments:
            raise AugmentError("mixup and cutmix mix the classes of whole images, and here every pixel has its own")
        if self.classes < 1:
            raise AugmentError("mixup and cutmix need to know how many classes there are: Loader(..., classes=...)")

    @property
    def segments(self) -> bool:
        """Say whether targets are label maps."""
        return not isinstance(self.targets, Tensor) or self.targets.dim() > 1

    def __len__(self) -> int:
        """Return the number of batches."""
        full, rest = divmod(len(self.targets), self.batch_size)
        return full + (rest >= (2 * self.ranks if self.shuffle and self.batch_size > 1 else 1))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through one epoch, in the order of ``epoch`` as it is now; its end adds one to ``epoch``."""
        epoch = self.epoch
        yield from batches(self, self.order(epoch), epoch, self.workers)
        self.epoch = epoch + 1

    def order(self, epoch: int) -> list[Tensor]:
        """Return the indices of this rank's part of every batch of an epoch."""
        count = len(self.targets)
        order = torch.randperm(count, generator=seeded(self.seed, epoch)) if self.shuffle else torch.arange(count)
        parts = [part[self.rank :: self.ranks] for part in order.split(self.batch_size)[: len(self)]]
        return [part for part in parts if len(part)]

    def batch(self, indices: Tensor, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Return the images and targets at ``indices`` as batch ``number`` of an epoch."""
        if self.augment is None:
            return self.normalise(read(self.images, indices)), self._targets(indices)
        generator = seeded(self.seed, epoch, number, self.rank)
        crops = None
        if self.augment.crop_area is not None:
            times = torch.rand(len(indices), generator=seeded(self.seed, epoch, number, self.rank, _TIME))
            crops = Crops(crop_draws(len(indices), generator), self.augment.crop_area, times)
        images, targets = read(self.images, indices, crops), self._targets(indices, crops)
        fill = _IGNORED if self.void is None else self.void
        images, targets = self.augment.move(images, targets, fill, generator)
        images = self.normalise(self.augment.recolour(images, generator))
        return self.augment.mix(images, targets, self.classes, generator)

    def first(self, count: int) -> Tensor:
        """Return the first ``count`` inputs, neither shuffled nor augmented."""
        return self.normalise(read(self.images, torch.arange(min(count, len(self.targets)))))

    def _targets(self, indices: Tensor, crops: Crops | None = None) -> Tensor:
        if not self.segments:
            return self.targets[indices]
        return read(self.targets, indices, crops, labels=True)[:, 0].long()
