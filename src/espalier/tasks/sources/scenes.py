"""Scenes: scikit-learn's handwritten digits, small and large, strewn over grey pictures of 64x64; find them all.

Made in a few seconds, always the same; each split has digits of its own.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from ...core import FileError
from ..build import Loading
from ..datasets import loader_of
from ..detection import AveragePrecision, DetectionLoss, Levels
from ..splits import Split
from ..task import Task
from . import digits

_SIZE, _CLASSES, _OBJECTS = 64, 10, 4
_SCALES = (1.0, 3.0)  # of the digits' 8 pixels
_NOISE = 0.1
_SCENES = {"train": 1200, "validation": 200, "test": 300}


def task(loading: Loading, image_size: int | None) -> Task:
    """Return the task.

    Raises:
        FileError: another size than 64 is asked for.
    """
    if image_size not in (None, _SIZE):
        raise FileError(f"scenes are {_SIZE}x{_SIZE}; image_size={image_size} does not apply")
    splits = digits.read(Path(), None)
    found = {}
    for seed, (name, count) in enumerate(_SCENES.items()):
        data = TensorDataset(*_strewn(getattr(splits, name), count, torch.Generator().manual_seed(seed)))
        found[name] = loader_of(data, loading.batch_size, loading.seed, shuffle=name == "train")
    return Task(
        "scenes",
        classes=_CLASSES,
        input_shape=(1, _SIZE, _SIZE),
        loss=DetectionLoss(_CLASSES, Levels(_SIZE)),
        metrics=AveragePrecision(_CLASSES, Levels(_SIZE)),
        kind="detection",
        class_names=tuple("0123456789"),
        **found,
    )


def _strewn(split: Split, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return scenes (count, 1, 64, 64), normalised, and what is in them (count, 4, 5)."""
    images = split.images
    assert isinstance(images, Tensor) and isinstance(split.targets, Tensor)
    scenes = _NOISE * torch.randn(count, 1, _SIZE, _SIZE, generator=generator)
    objects = torch.full((count, _OBJECTS, 5), -1.0)
    for scene, listed in zip(scenes, objects, strict=True):
        taken: list[tuple[int, int, int]] = []
        for number in range(1 + int(torch.randint(_OBJECTS, (), generator=generator))):
            which = int(torch.randint(len(images), (), generator=generator))
            scale = _SCALES[0] + (_SCALES[1] - _SCALES[0]) * float(torch.rand((), generator=generator))
            side = round(8 * scale)
            x, y = torch.randint(_SIZE - side + 1, (2,), generator=generator).tolist()
            if any(abs(x - a + (side - s) / 2) < (side + s) / 2 and abs(y - b + (side - s) / 2) < (side + s) / 2
                   for a, b, s in taken):  # fmt: skip
                continue
            taken.append((x, y, side))
            drawn = functional.interpolate(images[which : which + 1], size=(side, side), mode="bilinear")[0]
            scene[:, y : y + side, x : x + side] += drawn
            listed[number] = torch.tensor([float(split.targets[which]), x, y, x + side, y + side])
    return scenes, objects
