"""Pictures of a study's findings in pixels: strips, heat maps, bars and curves, as drawings for the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..core.findings import Bars, Heat, Lines, Part, Strip
from .charts import nice_ticks, steps

WIDTH, ROW, LETTER = 760, 22, 6.6  # of a picture, of a row, and of a letter of its labels
_TOP, _BOTTOM, _RIGHT = 10, 34, 16
_CURVES = 300  # height
_ASIDE = 4  # between the ranges of two lines at one place


@dataclass(frozen=True)
class Shape:
    """Something drawn: where, how large, in which class of the style sheet, and what it says when pointed at."""

    x: float
    y: float
    kind: str
    title: str = ""
    width: float = 0.0
    height: float = 0.0
    text: str = ""
    points: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        width, height: of it.
        left: where its frame begins.
        ticks: of the horizontal axis: (place, label).
        levels: of the vertical axis, where it has numbers.
        labels: (place from the top, text) of the rows.
        shapes: from back to front.
        legend: (class, name).
        columns: (place, text) of labels that are written upwards.
    """

    width: float
    height: float
    left: float
    ticks: tuple[tuple[float, str], ...]
    labels: tuple[tuple[float, str], ...]
    shapes: tuple[Shape, ...]
    legend: tuple[tuple[str, str], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()
    columns: tuple[tuple[float, str], ...] = ()


def picture(part: Part) -> Picture | None:
    """Return a part as a drawing; None where it is a table or has nothing to draw."""
    if isinstance(part, Strip):
        return _strip(part) if any(marks for _, marks in part.rows) else None
    if isinstance(part, Heat):
        return _heat(part)
    if isinstance(part, Bars):
        return _bars(part) if part.rows else None
    return _lines(part) if isinstance(part, Lines) and any(points for _, points in part.lines) else None


def _strip(part: Strip) -> Picture:
    left = _margin([label for label, _ in part.rows])
    marked, x = _across([mark.value for _, marks in part.rows for mark in marks], left)
    offset = ROW / 2 / max(1, len(part.series))
    shapes = tuple(
        Shape(
            x(mark.value),
            _middle(row) + (mark.series - (len(part.series) - 1) / 2) * offset,
            f"s{mark.series % 6}",
            mark.title,
        )
        for row, (_, marks) in enumerate(part.rows)
        for mark in marks
    )
    labels = tuple((_middle(row), label) for row, (label, _) in enumerate(part.rows))
    legend = tuple((f"s{i % 6}", name) for i, name in enumerate(part.series))
    return Picture(WIDTH, _TOP + ROW * len(part.rows) + _BOTTOM, left, _ticks(marked, x), labels, shapes, legend)


def _bars(part: Bars) -> Picture:
    left = _margin([row.label for row in part.rows])
    marked, x = _across([0.0, *(value for row in part.rows for value in (row.low, row.high, row.value))], left)
    shapes: list[Shape] = []
    for number, row in enumerate(part.rows):
        y, (begin, end) = _middle(number), sorted((x(0.0), x(row.value)))
        shapes.append(Shape(begin, y - ROW / 4, "new", row.title, width=end - begin, height=ROW / 2))
        shapes.append(Shape(x(row.low), y - 1, "whisker", row.title, width=x(row.high) - x(row.low), height=2))
    labels = tuple((_middle(number), row.label) for number, row in enumerate(part.rows))
    return Picture(WIDTH, _TOP + ROW * len(part.rows) + _BOTTOM, left, _ticks(marked, x), labels, tuple(shapes))


def _heat(part: Heat) -> Picture:
    left = _margin(part.labels)
    side = min(44.0, (WIDTH - left - _RIGHT) / max(1, len(part.labels)))
    top = _TOP + LETTER * max(map(len, part.labels), default=1)
    shapes = tuple(
        Shape(
            left + column * side,
            top + row * side,
            "none" if value is None else "plus" if value >= 0 else "minus",
            f"{part.labels[row]} and {part.labels[column]}: " + ("not told" if value is None else f"{value:.2f}"),
            width=side - 1,
            height=side - 1,
            text="" if value is None or side < 26 else f"{value:.2f}".replace("-", "\N{MINUS SIGN}"),
            share=abs(value or 0.0),
        )
        for row, values in enumerate(part.values)
        for column, value in enumerate(values)
    )
    labels = tuple((top + (row + 0.5) * side, label) for row, label in enumerate(part.labels))
    columns = tuple((left + (column + 0.5) * side, label) for column, label in enumerate(part.labels))
    return Picture(WIDTH, top + side * len(part.labels) + 6, left, (), labels, shapes, columns=columns)


def _lines(part: Lines) -> Picture:
    left = 56.0
    places = [point[0] for _, line in part.lines for point in line]
    marked, x = _log_across(places, left) if part.x_log else _across(places, left, whole=part.x_label == "epoch")
    heights = [point[1] for _, line in part.lines for point in line]
    heights += [end for spread in part.spreads for _, *ends in spread for end in ends]
    rows = nice_ticks(min(heights), max(heights))
    bottom = _CURVES - _BOTTOM

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * (value - rows[0]) / ((rows[-1] - rows[0]) or 1.0)

    shapes = tuple(
        Shape(0, 0, f"s{number % 6}", name, points=" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line))
        for number, (name, line) in enumerate(part.lines)
    )
    legend = tuple((f"s{i % 6}", name) for i, (name, _) in enumerate(part.lines))
    levels = tuple((y(value), f"{value:g}") for value in rows)
    return Picture(WIDTH, _CURVES, left, _ticks(marked, x), (), (*_spreads(part, x, y), *shapes), legend, levels)


def _spreads(part: Lines, x: Callable[[float], float], y: Callable[[float], float]) -> Iterator[Shape]:
    """Yield the ranges of a line's points as bars, those of several lines side by side."""
    for number, spread in enumerate(part.spreads):
        aside = (number - (len(part.spreads) - 1) / 2) * _ASIDE
        for at, low, high in spread:
            title = f"{part.lines[number][0]} at {at:.3g}: {low:.4g} to {high:.4g}"
            height = max(1.0, y(low) - y(high))
            yield Shape(x(at) + aside - 1, y(high), f"mark s{number % 6}", title, width=2, height=height)


def _margin(labels: Sequence[str]) -> float:
    """Return where the frame begins: after the longest label."""
    return min(260.0, 12 + LETTER * max(map(len, labels), default=0))


def _middle(row: int) -> float:
    return _TOP + (row + 0.5) * ROW


def _across(
    values: Sequence[float], left: float, *, whole: bool = False
) -> tuple[list[float], Callable[[float], float]]:
    """Return round numbers that cover the values, or whole ones inside, and what brings a value to its place."""
    marked = steps(values, whole=True) if whole else nice_ticks(min(values), max(values), most=7)
    low, high = min(marked[0], *values), max(marked[-1], *values)
    return marked, lambda value: left + (WIDTH - left - _RIGHT) * (value - low) / ((high - low) or 1.0)


def _log_across(values: Sequence[float], left: float) -> tuple[list[float], Callable[[float], float]]:
    """Return 1, 2 and 5 times powers of ten among the values, and what brings a value to its place."""
    low, high = math.log10(min(values)), math.log10(max(values))
    every = (factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 2, 5))
    marked = [value for value in every if low - 1e-9 <= math.log10(value) <= high + 1e-9]
    across = WIDTH - left - 2 * _RIGHT  # room for the ranges beside the first and last places
    return marked, lambda value: left + _RIGHT + across * (math.log10(value) - low) / ((high - low) or 1.0)


def _ticks(marked: Sequence[float], x: Callable[[float], float]) -> tuple[tuple[float, str], ...]:
    return tuple((x(value), f"{value:g}") for value in marked)
