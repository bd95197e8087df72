"""Moving digits: short grey videos of scikit-learn's handwritten digits; the class is the motion, not the digit.

left, right, up, down ─ clockwise, anticlockwise ─ growing, shrinking ─ bouncing sideways, bouncing upright

A digit, a place, a speed, an angle and a size are drawn for each video, so that hardly a frame alone gives the motion
away. Made in a second or two, always the same; each split has digits of its own.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ...core import FileError
from ..normalise import Normalise
from ..splits import Split, Splits
from . import digits

MOTIONS = (
    *("left", "right", "up", "down", "clockwise", "anticlockwise", "growing", "shrinking"),
    *("bouncing sideways", "bouncing upright"),
)
NORMALISE = Normalise((0.070,), (0.197,))  # of the training split
_FRAMES, _SIZE = 8, 32
_VIDEOS = 2  # of each digit
_CHUNK = 512  # videos drawn at a time


def read(path: Path, image_size: int | None) -> Splits:
    """Return train, validation (a tenth of the digits) and test (a fifth); ``image_size`` is that of the frames."""
    size = image_size or _SIZE
    if size < 16:
        raise FileError(f"moving digits take frames of 16 pixels at least; image_size={image_size} is too small")
    found = digits.read(path, None)
    train, validation, test = (
        _videos(split, size, seed) for seed, split in enumerate((found.train, found.validation, found.test))
    )
    return Splits(train=train, validation=validation, test=test, class_names=MOTIONS)


def _videos(split: Split, size: int, seed: int) -> Split:
    """Return videos of a split's digits, every motion as often as every other."""
    images = split.images
    assert isinstance(images, Tensor)
    generator = torch.Generator().manual_seed(seed)
    count = _VIDEOS * len(images)
    motion = torch.arange(count) % len(MOTIONS)
    motion = motion[torch.randperm(count, generator=generator)]
    paths = _paths(motion, generator)
    which = torch.arange(count) % len(images)
    parts = [_drawn(images[which[part]], paths[part], size) for part in torch.arange(count).split(_CHUNK)]
    return Split(torch.cat(parts), motion, (1, _FRAMES, size, size))


def _paths(motion: Tensor, generator: torch.Generator) -> Tensor:
    """Return (videos, frames, 4): where the digit is (x, y), angle in radians, and half size; a frame is 2 wide."""

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(motion), 1, generator=generator)

    time = torch.linspace(-1, 1, _FRAMES)
    reach, start = drawn(0.25, 0.45), drawn(-1.0, 1.0)
    bounce = 1 - 2 * ((time + start) % 2 - 1).abs()  # there and back once, from anywhere on the way
    place = {"left": (-time, None), "right": (time, None), "up": (None, -time), "down": (None, time)}
    place |= {"bouncing sideways": (bounce, None), "bouncing upright": (None, bounce)}
    path = torch.stack(
        [
            drawn(-0.2, 0.2) + 0 * time,
            drawn(-0.2, 0.2) + 0 * time,
            drawn(-0.4, 0.4) + 0 * time,
            drawn(0.4, 0.55) + 0 * time,
        ],
        dim=2,
    )
    turn, swell = drawn(0.8, 1.4) * time, 1 + drawn(0.25, 0.4) * time
    for number, name in enumerate(MOTIONS):
        mine = motion == number
        for axis, way in enumerate(place.get(name, ())):
            if way is not None:
                path[mine, :, axis] += (reach * way)[mine]
        if "clockwise" in name:
            path[mine, :, 2] += (turn if name == "clockwise" else -turn)[mine]
        if name in ("growing", "shrinking"):
            path[mine, :, 3] *= (swell if name == "growing" else swell.flip(1))[mine]
    return path


def _drawn(images: Tensor, paths: Tensor, size: int) -> Tensor:
    """Draw images (videos, 1, 8, 8) along their paths as bytes (videos, 1, frames, size, size)."""
    x, y, angle, half = paths.flatten(0, 1).unbind(1)
    cos, sin = angle.cos() / half, angle.sin() / half
    rows = torch.stack([cos, sin, -cos * x - sin * y, -sin, cos, sin * x - cos * y], dim=1).view(-1, 2, 3)
    frames = images.repeat_interleave(paths.shape[1], dim=0)
    grid = functional.affine_grid(rows, [len(frames), 1, size, size], align_corners=False)
    drawn = functional.grid_sample(frames, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (drawn * 255).round().to(torch.uint8).view(len(images), 1, paths.shape[1], size, size)
