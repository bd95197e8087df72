"""Batches of images and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .augment import Augment


class Images(Protocol):
    """Images by index: a tensor, or files that are decoded when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Normalise:
    """(x - mean) / std, a channel; ``x`` in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised float images; bytes are brought to [0, 1] first."""
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (x - mean) / std


IMAGENET = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = Normalise((0.449,), (0.226,))  # the averages of the three


@dataclass(eq=False)
class Loader:
    """Iterate over ``(x, y)`` batches; every pass is one epoch, in an order that the seed and its number decide.

    Attributes:
        images: (count, channels, height, width), bytes or floats in [0, 1], or anything that gives those by index.
        labels: (count,) integers.
        normalise: applied to every batch.
        batch_size: images a batch; the last one is smaller.
        shuffle: a new order every epoch, for training; a last batch of a single image, which batch norm cannot
            train on, is left out.
        augment: applied to every batch before it is normalised.
        seed: of the order and of the augmentation.
        epoch: the number of the next pass; set it to go on where another run stopped.
    """

    images: Images = field(repr=False)
    labels: Tensor = field(repr=False)
    normalise: Normalise = IMAGENET
    batch_size: int = 128
    shuffle: bool = False
    augment: Augment | None = None
    seed: int = 0
    epoch: int = 0

    def __len__(self) -> int:
        """Return the number of batches."""
        full, rest = divmod(len(self.labels), self.batch_size)
        return full + (rest > (1 if self.shuffle else 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through one epoch, in the order of ``epoch`` as it is now; its end adds one to ``epoch``."""
        epoch = self.epoch
        for number, indices in enumerate(self.order(epoch)):
            yield self._batch(indices, seeded(self.seed, epoch, number))
        self.epoch = epoch + 1

    def order(self, epoch: int) -> list[Tensor]:
        """Return the indices of every batch of an epoch."""
        count = len(self.labels)
        order = torch.randperm(count, generator=seeded(self.seed, epoch)) if self.shuffle else torch.arange(count)
        return list(order.split(self.batch_size))[: len(self)]

    def first(self, count: int) -> Tensor:
        """Return the first ``count`` inputs, neither shuffled nor augmented."""
        return self.normalise(self.images[torch.arange(min(count, len(self.labels)))])

    def _batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = self.images[indices]
        if self.augment is not None:
            images = self.augment(images, generator)
        return self.normalise(images), self.labels[indices]


def seeded(*numbers: int) -> torch.Generator:
    """Return random numbers that depend on all of ``numbers`` (none negative) and on nothing else."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
