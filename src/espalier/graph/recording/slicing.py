"""Indexing by slices and integers: which operator got which bound, and the slices that PyTorch skips.

A slice that cuts nothing off runs no operator, so none tells what its bounds mean; all others come in their order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .sizes import Size, plain
from .source_lines import source_line


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
            if Size.heard is not None:
                Size.heard.covered.setdefault((bound.expr, shape[d].expr), source_line())
            _ = bound == shape[d] if plain(bound) == plain(shape[d]) else bound > shape[d]


def bounded(func_name: str, args: tuple, index: list[Any]) -> tuple:
    """Return the arguments of a slice or select with its bounds as Python wrote them, and take these from ``index``."""
    if func_name == "select":
        wanted = [part for part in index if isinstance(part, int) and plain(part) == args[2]]
        replaced = [(2, part) for part in wanted[:1]]
    else:
        wanted = [part for part in index if isinstance(part, slice) and _is_slice(part, args)]
        replaced = [(2 + i, bound) for part in wanted[:1] for i, bound in enumerate((part.start, part.stop, part.step))]
    if wanted:
        index.remove(wanted[0])
    result = list(args)
    for i, number in replaced:
        if number is not None and i < len(result):
            result[i] = number if isinstance(number, Size) else Size(number, ("const", number))
    return tuple(result)


def _is_slice(part: slice, args: tuple) -> bool:
    defaults = (0, sys.maxsize, 1)
    given = (*args[2:], *defaults[len(args) - 2 :])
    own = (part.start, part.stop, part.step)
    return all(plain(default if a is None else a) == b for a, b, default in zip(own, given, defaults, strict=True))


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
