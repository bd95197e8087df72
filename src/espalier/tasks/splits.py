"""What a source finds: images and targets of three splits, and the rule that sets validation aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core import FileError
from .images import Encoded, Images

VALIDATION_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Split:
    """Images (count, channels, height, width), and classes (count,) or label maps (count, 1, height, width)."""

    images: Images
    targets: Images
    shape: tuple[int, ...]  # of one image

    def pick(self, indices: Tensor) -> Split:
        """Return the images and targets at ``indices``."""
        return Split(_pick(self.images, indices), _pick(self.targets, indices), self.shape)

    def divide(self, *shares: float) -> list[Split]:
        """Shuffle by ``numpy.random.default_rng(0)`` and divide; the first part gets what the ``shares`` leave.

        The shares are taken from the end, the last one last.
        """
        sizes = [int(share * len(self.targets)) for share in shares]
        order = reference_order(len(self.targets))
        return [self.pick(part) for part in order.split([len(order) - sum(sizes), *sizes])]


@dataclass(frozen=True, eq=False, kw_only=True)
class Splits:
    """Three splits, and what is known of them.

    Attributes:
        train, validation, test: images and targets.
        class_names: in the order of their numbers; empty where the data has none.
        void: label of pixels that are of no class.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()
    void: int | None = None

    @property
    def segments(self) -> bool:
        """Say whether targets are label maps."""
        return not isinstance(self.train.targets, Tensor) or self.train.targets.dim() > 1


def complete(
    train: Split, validation: Split | None, test: Split, *, class_names: tuple[str, ...] = (), void: int | None = None
) -> Splits:
    """Set a tenth of training aside where there is no validation."""
    if validation is None:
        train, validation = train.divide(VALIDATION_SHARE)
    return Splits(train=train, validation=validation, test=test, class_names=class_names, void=void)


def reference_order(count: int) -> Tensor:
    """Return ``numpy.random.default_rng(0).permutation(count)``: the order that divides data, whatever the seed."""
    return torch.from_numpy(np.random.default_rng(0).permutation(count))


def _pick(images: Images, indices: Tensor) -> Images:
    if isinstance(images, Encoded):
        return images.pick(indices)
    if isinstance(images, Tensor):
        return images[indices]
    raise FileError(f"{type(images).__name__} cannot be divided: give tensors")
