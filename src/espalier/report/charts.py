"""Numbers of a chart, ready to be drawn as SVG by the page's template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 12, 28  # margins that hold the labels


@dataclass(frozen=True)
class Tick:
    """One labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """One measured value, with what a reader sees when pointing at it."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Curve:
    """One line over the epochs.

    Attributes:
        title: what it shows, with its unit.
        points: in pixels.
        x_ticks, y_ticks: of the axes, in pixels.
        marks: where a new stage begins, in pixels, with its name.
    """

    title: str
    points: tuple[Point, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]

    @property
    def path(self) -> str:
        """Return the line as SVG path data."""
        return "M" + "L".join(f"{p.x:.1f} {p.y:.1f}" for p in self.points)


def curve(title: str, unit: str, values: Sequence[float | None], stages: Sequence[str]) -> Curve | None:
    """Lay out ``values`` (one an epoch) as a curve, or return None where fewer than two are numbers.

    Args:
        title: what it shows.
        unit: appended to each value when pointed at.
        values: one an epoch; None leaves the epoch out.
        stages: the stage of each epoch.
    """
    known = [(i, v) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    if len(known) < 2:
        return None
    low, high = min(v for _, v in known), max(v for _, v in known)
    steps = nice_ticks(low, high)
    low, high = min(low, steps[0]), max(high, steps[-1])

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / ((high - low) or 1.0)

    every = max(1, math.ceil(len(values) / 12))
    return Curve(
        title,
        tuple(Point(x(i), y(v), f"epoch {i + 1}: {v:.4g}{unit}") for i, v in known),
        tuple(Tick(x(i), str(i + 1)) for i in range(0, len(values), every)),
        tuple(Tick(y(v), f"{v:g}") for v in steps),
        tuple(Tick(x(i - 0.5), stage) for i, stage in enumerate(stages) if i and stage != stages[i - 1]),
    )


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers that cover ``low`` to ``high``, in steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
