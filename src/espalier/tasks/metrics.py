"""Losses and metrics, for whatever a network returns.

A metric is a sum over examples and what that sum comes to, so that batches of any size, and the shards of several
processes, add up to the same value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..graph.probes.outputs import logits


class Metrics(Protocol):
    """What is counted over a split.

    Attributes:
        names: of the values, the one that decides first; all are in [0, 1] and higher is better.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def count(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return integers that add up over batches."""
        ...

    def values(self, counts: Tensor) -> dict[str, float]:
        """Return each name's value from the sum of all counts."""
        ...


@dataclass(frozen=True)
class Accuracy:
    """The share of examples whose class is right.

    Targets are classes (batch,), or the shares of several (batch, classes), of which the largest counts.
    """

    names: tuple[str, ...] = ("accuracy",)

    def count(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return how many are right, and how many there are."""
        classes = targets.argmax(1) if targets.dim() > 1 else targets
        right = (logits(outputs).argmax(1) == classes).sum()
        return torch.stack([right, torch.full_like(right, len(targets))])

    def values(self, counts: Tensor) -> dict[str, float]:
        """Return the share; 0 of nothing."""
        right, all_ = counts.tolist()
        return {"accuracy": right / all_ if all_ else 0.0}


@dataclass(frozen=True)
class Overlap:
    """Segmentation: how far predicted and true regions overlap, and the share of pixels that are right.

        IoU_c = true positives / (true positives + false positives + false negatives),   averaged over c that occur

    Source: Everingham et al., "The PASCAL visual object classes challenge", IJCV 2015, section 4.2.2.

    Attributes:
        classes: of the network's output (batch, classes, height, width).
        void: a label of pixels that count neither way; None when every pixel counts.
    """

    classes: int
    void: int | None = None
    names: tuple[str, ...] = ("mean_iou", "pixel_accuracy")

    def count(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the confusion matrix (classes, classes): rows are true, columns predicted."""
        predicted = logits(outputs)
        if predicted.shape[-2:] != targets.shape[-2:]:
            predicted = resized(predicted, targets)
        counted = torch.ones_like(targets, dtype=torch.bool) if self.void is None else targets != self.void
        pairs = targets[counted] * self.classes + predicted[:, : self.classes].argmax(1)[counted]
        return torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def values(self, counts: Tensor) -> dict[str, float]:
        """Return both shares; 0 of nothing."""
        right = counts.diagonal()
        union = counts.sum(0) + counts.sum(1) - right
        occurs = union > 0
        iou = (right[occurs].double() / union[occurs]).mean() if occurs.any() else torch.zeros(())
        pixels = int(counts.sum())
        return {"mean_iou": float(iou), "pixel_accuracy": int(right.sum()) / pixels if pixels else 0.0}


@dataclass(frozen=True)
class SegmentationLoss:
    """Mean cross-entropy over the pixels that are not void."""

    void: int | None = None

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the loss of outputs (batch, classes, height, width) for targets (batch, height, width)."""
        predicted = logits(outputs)
        if predicted.shape[-2:] != targets.shape[-2:]:
            predicted = resized(predicted, targets)
        ignored = -100 if self.void is None else self.void  # PyTorch's own number that no label has
        return functional.cross_entropy(predicted, targets, ignore_index=ignored)


def classification_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``targets``, classes (batch,) or shares of classes (batch, classes)."""
    return functional.cross_entropy(logits(outputs), targets)


def squared_hinge(outputs: Any, targets: Tensor) -> Tensor:
    """Return the mean over batch and classes of max(0, 1 - t s)^2, t = +1 for an image's class and -1 for the others.

    Source: Tang, arXiv:1306.0239, which BinaryConnect and BinaryNet follow; the mean over classes is theirs.

    Args:
        outputs: scores (batch, classes).
        targets: classes (batch,), or shares of classes (batch, classes), whose t lies between.
    """
    scores = logits(outputs)
    shares = targets if targets.dim() > 1 else functional.one_hot(targets, scores.shape[1])
    return (1 - (2 * shares.to(scores.dtype) - 1) * scores).clamp_min(0).square().mean()


def resized(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return a coarse network's scores at the size of the targets."""
    return functional.interpolate(predicted, size=targets.shape[-2:], mode="bilinear", align_corners=False)
