"""Latency of a plan: the sum of its layers' measured times, by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..graph.axes.polynomial import Poly
from ..graph.probes.operators import Counts, Operator, operators
from .staircase import Surface
from .tables import Tables, TablesError

if TYPE_CHECKING:
    from ..graph import Graph

_NO_AXIS = Poly.const(0)


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Predicts the milliseconds of a network; compiled to arrays, so that a planner can ask thousands of times.

    Every layer has a place in the arrays for each of its widths: its table's first entry.

    Attributes:
        factor: the whole network over the sum of its layers.
        constant_ms: of layers that no plan changes.
        widths: every layer's widths as polynomials in group sizes, layer by layer.
        full_ms: of shape (layers,).
        places: of shape (layers, axes): where in ``steps``, ``below`` and ``share`` each width's table begins.
        steps: relative times along an axis, of all tables.
        below, share: the grid's line below a width, and how far it is towards the next one.
        grids: of all tables, flat.
        corners: of shape (layers, 2): where in ``grids`` a layer's begins, and its row length.
    """

    factor: float
    constant_ms: float
    widths: Counts
    full_ms: np.ndarray
    places: np.ndarray
    steps: np.ndarray
    below: np.ndarray
    share: np.ndarray
    grids: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, graph: Graph, tables: Tables) -> LatencyModel:
        """Compile the tables for a network.

        Raises:
            TablesError: a layer of the network is not in the tables, or was measured less wide.
        """
        timed = [one for one in operators(graph, tables.conditions.batch) if one.kind in tables.kinds]
        found = {one.key: _surface(one, tables) for one in timed}
        layers = [(one, surface) for one in timed if (surface := found[one.key]) is not None]
        for one, surface in layers:
            _check_wide_enough(one, surface)
        moving = [(one, surface) for one, surface in layers if one.widths]
        constant = sum(surface.full_ms for one, surface in layers if not one.widths)
        axes = max((len(one.widths) for one, _ in moving), default=0)
        polynomials = [p for one, _ in moving for p in (*one.polynomials, *[_NO_AXIS] * (axes - len(one.polynomials)))]
        return cls(tables.factor, constant, Counts.of(polynomials, len(graph.groups)), *_compiled(moving, axes))

    def ms(self, counts: Mapping[str, int] | Sequence[int]) -> float:
        """Return the milliseconds when groups keep ``counts`` units, in the graph's order."""
        sizes = list(counts.values()) if isinstance(counts, Mapping) else counts
        if not len(self.full_ms):
            return self.factor * self.constant_ms
        widths = np.rint(self.widths.values(sizes)).astype(np.int64).reshape(self.places.shape)
        at = self.places + widths
        times = self.full_ms * self.steps[at].prod(axis=1)
        if at.shape[1] > 1:
            times = times * self._corrections(at)
        return self.factor * (self.constant_ms + float(times.sum()))

    def _corrections(self, at: np.ndarray) -> np.ndarray:
        """Return the grids' bilinear values."""
        (start, row), (low0, low1) = self.corners.T, self.below[at[:, :2]].T
        share0, share1 = self.share[at[:, :2]].T
        next0, next1 = row * (share0 > 0), 1 * (share1 > 0)
        first = start + low0 * row + low1
        near = self.grids[first] * (1 - share1) + self.grids[first + next1] * share1
        far = self.grids[first + next0] * (1 - share1) + self.grids[first + next0 + next1] * share1
        return near * (1 - share0) + far * share0


def _surface(one: Operator, tables: Tables) -> Surface | None:
    """Return a layer's surface; None where it could not be timed alone."""
    if one.key not in tables.layers:
        raise TablesError(
            f"the latency tables have no times of this network's layer: {one.key}. They were measured on another "
            "network, or on another input size: measure again with measure.latency_tables(model, graph)"
        )
    times = tables.layers[one.key]
    return Surface.of(times) if times else None


def _check_wide_enough(one: Operator, surface: Surface) -> None:
    known = tuple(len(steps) - 1 for steps in surface.steps)
    if len(known) != len(one.widths) or any(w > k for w, k in zip(one.widths, known, strict=True)):
        raise TablesError(
            f"a layer is {one.widths} wide; the latency tables know it up to {known}: {one.key}. Measure again"
        )


def _compiled(layers: Sequence[tuple[Operator, Surface]], axes: int) -> tuple[np.ndarray, ...]:
    """Return the arrays of ``LatencyModel``, in order."""
    steps: list[np.ndarray] = [np.ones(1)]  # place 0: an axis that is not there
    below: list[np.ndarray] = [np.zeros(1, np.int64)]
    share: list[np.ndarray] = [np.zeros(1)]
    grids: list[np.ndarray] = []
    starts: dict[int, tuple[list[int], list[int]]] = {}  # by surface: places, corner
    length, filled = 1, 0
    for _, surface in layers:
        if id(surface) in starts:
            continue
        places = []
        for axis, own in enumerate(surface.steps):
            places.append(length)
            low, towards = _on_lines(len(own), surface.lines[axis] if axis < 2 else np.zeros(1))
            steps, below, share = [*steps, own], [*below, low], [*share, towards]
            length += len(own)
        starts[id(surface)] = places + [0] * (axes - len(places)), [filled, surface.grid.shape[1]]
        grids.append(surface.grid.reshape(-1))
        filled += surface.grid.size
    return (
        np.array([surface.full_ms for _, surface in layers]),
        np.array([starts[id(surface)][0] for _, surface in layers], np.int64).reshape(len(layers), axes),
        np.concatenate(steps),
        np.concatenate(below),
        np.concatenate(share),
        np.concatenate(grids) if grids else np.ones(1),
        np.array([starts[id(surface)][1] for _, surface in layers], np.int64).reshape(len(layers), 2),
    )


def _on_lines(length: int, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for widths from 0 to ``length - 1``, the line below and the share of the way to the next."""
    place = np.interp(np.arange(length), lines, np.arange(len(lines)))
    low = np.floor(place).astype(np.int64)
    return low, place - low
