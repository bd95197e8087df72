"""Slices that cut nothing off: PyTorch skips them, so no operator tells what their bounds mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .sizes import Size, plain


def hear_whole_slices(shape: Sequence[Size], index: Any) -> None:
    """Compare each bound that reaches the end of its dimension with its size, so that the outcome is heard.

    ``x[:, :self.width]`` with as many columns as ``width`` means all of them: the two must stay equal, or, where there
    is room to spare, in their order.
    """
    for d, part in _dimensions(len(shape), index):
        if not isinstance(part, slice) or part.step not in (None, 1):
            continue
        from_end = isinstance(part.start, Size) and plain(part.start) < 0
        bound = -part.start if from_end else part.stop
        if isinstance(bound, Size) and plain(bound) >= plain(shape[d]):
            _ = bound == shape[d] if plain(bound) == plain(shape[d]) else bound > shape[d]


def _dimensions(rank: int, index: Any) -> Iterator[tuple[int, Any]]:
    """Yield the dimension of each part of an index."""
    parts = index if isinstance(index, tuple) else (index,)
    d = 0
    for i, part in enumerate(parts):
        if part is Ellipsis:
            d = rank - sum(_taken(later) for later in parts[i + 1 :])
        elif taken := _taken(part):
            yield d, part
            d += taken


def _taken(part: Any) -> int:
    """Return how many dimensions a part of an index takes."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    if isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8):
        return part.dim()
    return 1
