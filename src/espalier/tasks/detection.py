"""Detection: boxes at the positions of a pyramid's levels, their loss, and average precision.

outputs (batch, classes + 4, positions):  class logits, and log distances to the four edges in strides
targets (batch, objects, 5):              class, left, top, right, bottom in pixels; class -1 where there is none
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core import ModelError
from ..graph.probes.outputs import logits

_FOCUS, _SHARE = 2.0, 0.25  # gamma and alpha of the focal loss
_CENTRE = 1.5  # strides around an object's centre that are trained to see it
_BINS = 200  # of scores, in which average precision is counted
_KEPT, _LEAST_SCORE, _MERGED = (
    20,
    0.05,
    0.5,
)  # boxes of a class in an image, their least score, and the overlap of two of one object


@dataclass(frozen=True)
class Levels:
    """Where a pyramid looks.

    Attributes:
        size: height and width of the images.
        strides: of the levels, in the order of the outputs.
        sides: longest side of the objects that a level is for; the last is for all that are longer.
    """

    size: int = 64
    strides: tuple[int, ...] = (4, 8, 16)
    sides: tuple[float, ...] = (12.0, 20.0, float("inf"))

    def places(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x, y) of every position (positions, 2), its stride and its level (positions,)."""
        points, strides, levels = [], [], []
        for number, stride in enumerate(self.strides):
            axis = torch.arange(0, -(-self.size // stride), device=device) * stride + stride / 2
            y, x = torch.meshgrid(axis, axis, indexing="ij")
            points.append(torch.stack([x.flatten(), y.flatten()], 1))
            strides += [torch.full((len(axis) ** 2,), float(stride), device=device)]
            levels += [torch.full((len(axis) ** 2,), number, device=device)]
        return torch.cat(points), torch.cat(strides), torch.cat(levels)

    def split(self, outputs: Any, classes: int) -> tuple[Tensor, Tensor]:
        """Return class logits (batch, positions, classes) and boxes (batch, positions, 4) in pixels.

        Raises:
            ModelError: the outputs have another shape.
        """
        found = logits(outputs).float()
        points, strides, _ = self.places(found.device)
        if found.dim() != 3 or found.shape[1:] != (classes + 4, len(points)):
            raise ModelError(
                f"a detector for {classes} classes at strides {self.strides} of {self.size}x{self.size} images answers "
                f"(batch, {classes + 4}, {len(points)}), not {tuple(found.shape)}"
            )
        reach = found[:, classes:].transpose(1, 2).clamp(max=5).exp() * strides[:, None]
        boxes = torch.cat([points - reach[..., :2], points + reach[..., 2:]], 2)
        return found[:, :classes].transpose(1, 2), boxes


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union of boxes (..., 4) with boxes (..., 4), broadcast."""
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area = [(one[..., 2:] - one[..., :2]).clamp(min=0).prod(-1) for one in (a, b)]
    return inner / (area[0] + area[1] - inner).clamp(min=1e-6)


@dataclass(frozen=True)
class DetectionLoss:
    """Focal loss of the classes at all positions, and 1 - IoU of the boxes where an object is; by objects' positions.

    A position is an object's if it lies in it, near its centre, on the level for its size; the smallest object has it.

    Source: Lin et al., Focal Loss, ICCV 2017, arXiv:1708.02002; Tian et al., FCOS, arXiv:1904.01355, section 3.1.
    """

    classes: int
    levels: Levels = Levels()

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the loss of outputs (batch, classes + 4, positions) for targets (batch, objects, 5)."""
        scores, boxes = self.levels.split(outputs, self.classes)
        owner = self.assigned(targets)
        there = owner >= 0
        wanted = torch.zeros_like(scores)
        rows, places = there.nonzero(as_tuple=True)
        objects = targets[rows, owner[rows, places]]
        wanted[rows, places, objects[:, 0].long()] = 1.0
        plain = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
        chance = torch.sigmoid(scores)
        wrong = chance + wanted - 2 * chance * wanted
        focal = plain * wrong**_FOCUS * (_SHARE * wanted + (1 - _SHARE) * (1 - wanted))
        box = 1 - overlaps(boxes[rows, places], objects[:, 1:])
        return (focal.sum() + box.sum()) / max(len(rows), 1)

    def assigned(self, targets: Tensor) -> Tensor:
        """Return which object each position is for, (batch, positions); -1 for none."""
        points, strides, level = self.levels.places(targets.device)
        box = targets[:, None, :, 1:]  # (batch, 1, objects, 4)
        edges = torch.cat([points[None, :, None] - box[..., :2], box[..., 2:] - points[None, :, None]], 3)
        middle = (box[..., :2] + box[..., 2:]) / 2
        near = (points[None, :, None] - middle).abs().amax(3) <= _CENTRE * strides[None, :, None]
        side = (box[..., 2:] - box[..., :2]).amax(3)
        limits = torch.tensor([0.0, *self.levels.sides], device=targets.device)
        fits = (side >= limits[level][None, :, None]) & (side < limits[level + 1][None, :, None])
        good = (edges.amin(3) > 0) & near & fits & (targets[:, None, :, 0] >= 0)
        area = torch.where(good, (box[..., 2:] - box[..., :2]).prod(3).expand_as(good), torch.inf)
        least, owner = area.min(2)
        return torch.where(least.isinf(), -1, owner)


@dataclass(frozen=True)
class AveragePrecision:
    """Mean over classes of the area below precision over recall, at one overlap; scores are counted in 200 bins.

    Source: Everingham et al., IJCV 2015, section 4.2 (precision is the best at any higher recall).
    Differs: (1) boxes whose scores share a bin count together, so that shards of several processes add up.
    """

    classes: int
    levels: Levels = Levels()
    overlap: float = 0.5
    names: tuple[str, ...] = ("average_precision",)

    def count(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return (classes, 2 * bins + 1): right and wrong boxes a bin of scores, and how many objects there are."""
        scores, boxes = self.levels.split(outputs, self.classes)
        found = torch.zeros(self.classes, 2 * _BINS + 1, dtype=torch.int64)
        for chances, places, objects in zip(scores.sigmoid().cpu(), boxes.cpu(), targets.cpu(), strict=True):
            for number in range(self.classes):
                own = objects[objects[:, 0] == number][:, 1:]
                kept, box = _distinct(chances[:, number], places)
                right = _matched(box, own, self.overlap)
                bins = (kept * _BINS).long().clamp(max=_BINS - 1)
                found[number, -1] += len(own)
                found[number, :-1] += torch.bincount(bins + _BINS * ~right, minlength=2 * _BINS)
        return found

    def values(self, counts: Tensor) -> dict[str, float]:
        """Return the mean over the classes that occur; 0 of nothing."""
        right, wrong = (counts[:, part].flip(1).cumsum(1).double() for part in (slice(_BINS), slice(_BINS, -1)))
        total = counts[:, -1:].double()
        precision = (right / (right + wrong).clamp(min=1)).flip(1).cummax(1).values.flip(1)
        recall = right / total.clamp(min=1)
        steps = torch.diff(recall, dim=1, prepend=torch.zeros_like(total))
        occurs = total[:, 0] > 0
        return {"average_precision": float((steps * precision).sum(1)[occurs].mean()) if occurs.any() else 0.0}


def _distinct(scores: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best boxes of one class, the highest score first, without those that overlap a better one."""
    likely = (scores > _LEAST_SCORE).nonzero().flatten()
    order = likely[scores[likely].argsort(descending=True, stable=True)[:_KEPT]]
    near = (overlaps(boxes[order][:, None], boxes[order][None]) >= _MERGED).tolist()
    kept: list[int] = []
    for one in range(len(order)):
        if not any(near[one][better] for better in kept):
            kept.append(one)
    return scores[order[kept]], boxes[order[kept]]


def _matched(boxes: Tensor, objects: Tensor, overlap: float) -> Tensor:
    """Say which boxes, the best first, find an object that none before them found."""
    free = torch.ones(len(objects), dtype=torch.bool)
    right = torch.zeros(len(boxes), dtype=torch.bool)
    shared = overlaps(boxes[:, None], objects[None])
    for number in range(len(boxes) if len(objects) else 0):
        found = torch.where(free, shared[number], -1.0)
        best = int(found.argmax())
        if float(found[best]) >= overlap:
            right[number], free[best] = True, False
    return right
