"""Staircase: a layer's time at any width, from its times at some.

Kernels work in blocks of 8 or 16 channels, and change to slower code at widths that are no multiple: time jumps up and
down along the width. A straight line between measured points would hide that, so along an axis a width is interpolated
only among its own kind: multiples of 16, of 8, and the others.

    t(x1, x2) = t(full, full) * s1(x1) * s2(x2) * c(x1, x2)
    s_i   times along axis i, the others full, over t(full, full)
    c     what is left at a coarse grid of pairs, bilinear between them; 1 where one width is full
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .tables import TablesError, Widths

BLOCKS = (16, 8, 1)


def kind(width: int) -> int:
    """Return the largest block that a width is a multiple of."""
    return next(block for block in BLOCKS if width % block == 0)


@dataclass(frozen=True, eq=False)
class Surface:
    """A layer's times, tabulated.

    Attributes:
        full_ms: at full widths.
        steps: one array an axis: ``s`` at every width from 0 to full.
        lines: the grid's widths, one array for each of the first two axes.
        grid: ``c``, of shape (lines of the first axis, lines of the second).
    """

    full_ms: float
    steps: tuple[np.ndarray, ...]
    lines: tuple[np.ndarray, np.ndarray]
    grid: np.ndarray

    @classmethod
    def of(cls, times: Mapping[Widths, float]) -> Surface:
        """Tabulate measured times.

        Args:
            times: ``{widths: ms}``: points along every axis where the others are full (full is the largest), and of
                two axes also all pairs of some smaller widths. More axes are taken as independent of each other.

        Raises:
            TablesError: such points are missing.
        """
        full = tuple(max(axis) for axis in zip(*times, strict=True))
        if full not in times:
            raise TablesError(f"a layer was not timed at its full widths {full}")
        steps = tuple(_steps(_along(times, full, axis)) / times[full] for axis in range(len(full)))
        inner = [widths for widths in times if len(widths) == 2 and widths[0] < full[0] and widths[1] < full[1]]
        lines = [np.array(sorted({w[axis] for w in inner} | {full[axis]}) if inner else [0]) for axis in (0, 1)]
        grid = np.ones((len(lines[0]), len(lines[1])))
        for (row, first), (column, second) in itertools.product(enumerate(lines[0][:-1]), enumerate(lines[1][:-1])):
            pair = (int(first), int(second))
            if pair not in times:
                raise TablesError(f"a layer was timed at some pairs of widths, but not at {pair}")
            grid[row, column] = times[pair] / (times[full] * steps[0][first] * steps[1][second])
        return cls(times[full], steps, (lines[0], lines[1]), grid)

    def at(self, widths: Sequence[int]) -> float:
        """Return the milliseconds at these widths."""
        time = self.full_ms * float(np.prod([step[width] for step, width in zip(self.steps, widths, strict=True)]))
        if self.grid.size == 1:
            return time
        across = [np.interp(widths[1], self.lines[1], row) for row in self.grid]
        return time * float(np.interp(widths[0], self.lines[0], across))


def _along(times: Mapping[Widths, float], full: Widths, axis: int) -> dict[int, float]:
    """Return ``{width: ms}`` of one axis, the others full."""
    return {w[axis]: ms for w, ms in times.items() if (*w[:axis], full[axis], *w[axis + 1 :]) == full}


def _steps(along: Mapping[int, float]) -> np.ndarray:
    """Return the time at every width from 0 to the largest, interpolated within each kind of width."""
    widths = np.arange(max(along) + 1)
    kinds = np.select([widths % block == 0 for block in BLOCKS], BLOCKS)
    result = np.empty(len(widths))
    for block in BLOCKS:
        own = sorted(w for w in along if kind(w) == block)
        own = own if len(own) > 1 else sorted(along)  # too few of its kind: a straight line is all that is known
        mine = kinds == block
        result[mine] = np.interp(widths[mine], own, [along[w] for w in own])
    result[list(along)] = list(along.values())
    return result
