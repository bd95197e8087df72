"""Charts as data, drawn twice: as SVG for paper and for readers without script, and by plotly for all others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 14, 42  # margins that hold the labels

Role = Literal["line", "dense", "cut", "trained", "undone"]


@dataclass(frozen=True)
class Dot:
    """One measured value, with what a reader sees when pointing at it."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Series:
    """Values that are drawn alike: joined by a line, or each with its role's mark."""

    name: str
    role: Role
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Mark:
    """A place on the horizontal axis with a name."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        key: its name in the page.
        title: what it shows, with the unit.
        x_label, y_label: of the axes.
        series: from back to front.
        marks: vertical lines.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()

    def to_data(self) -> dict[str, Any]:
        """Return everything as JSON-ready data."""
        return asdict(self)

    @property
    def drawing(self) -> Drawing:
        """Return the chart in pixels."""
        return draw(self)


@dataclass(frozen=True)
class Drawing:
    """A chart in pixels: series, marks of the axes, and marks of the chart."""

    series: tuple[Series, ...]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    marks: tuple[Mark, ...]


def curve(key: str, title: str, unit: str, values: Sequence[float | None], stages: Sequence[str]) -> Chart | None:
    """Return ``values`` (one an epoch) as a chart, or None where fewer than two are numbers.

    Args:
        key: the chart's name in the page.
        title: what it shows.
        unit: appended to each value when pointed at.
        values: one an epoch; None leaves the epoch out.
        stages: the stage of each epoch.
    """
    known = [(i, v) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    if len(known) < 2:
        return None
    dots = tuple(Dot(i + 1, v, f"epoch {i + 1}: {v:.4g}{unit} ({stages[i]})") for i, v in known)
    marks = tuple(Mark(i + 0.5, stage) for i, stage in enumerate(stages) if i and stage != stages[i - 1])
    return Chart(key, title, "epoch", title, (Series(title, "line", dots),), marks)


def draw(chart: Chart) -> Drawing:
    """Lay out a chart in a frame of WIDTH by HEIGHT pixels."""
    dots = [dot for series in chart.series for dot in series.dots]
    x_steps = steps([dot.x for dot in dots], whole=chart.x_label == "epoch")
    y_steps = nice_ticks(min(dot.y for dot in dots), max(dot.y for dot in dots))
    ends = (min(x_steps[0], *(dot.x for dot in dots)), max(x_steps[-1], *(dot.x for dot in dots)))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - ends[0]) / ((ends[1] - ends[0]) or 1.0)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (y_steps[-1] - value) / ((y_steps[-1] - y_steps[0]) or 1.0)

    return Drawing(
        tuple(Series(s.name, s.role, tuple(Dot(x(d.x), y(d.y), d.title) for d in s.dots)) for s in chart.series),
        tuple(Mark(x(value), f"{value:g}") for value in x_steps),
        tuple(Mark(y(value), f"{value:g}") for value in y_steps),
        tuple(Mark(x(mark.at), mark.label) for mark in chart.marks),
    )


def steps(values: Sequence[float], *, whole: bool) -> list[float]:
    """Return the places that are marked on a horizontal axis: whole and inside for epochs, from zero for a cost."""
    low, high = min(values), max(values)
    if not whole:
        return nice_ticks(min(0.0, low), high)
    every = max(1, math.ceil((high - low) / 9))
    return [float(value) for value in range(int(low), int(high) + 1, every)]


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers that cover ``low`` to ``high``, in steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
