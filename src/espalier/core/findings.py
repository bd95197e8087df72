"""What a study found, as a report shows it: sections of text, pictures and tables, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Part:
    """A picture or a table.

    Attributes:
        title: what it shows, with the unit.
        note: how to read it.
        shape: names the kind of it.
    """

    title: str
    note: str = ""
    shape: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One value of a strip: ``series`` is its place in the strip's list of series."""

    value: float
    series: int
    title: str


@dataclass(frozen=True, kw_only=True)
class Strip(Part):
    """Values side by side, a row for each thing that was varied.

    Attributes:
        rows: (label, marks), from top to bottom.
        series: names of what is told apart by colour.
    """

    rows: tuple[tuple[str, tuple[Mark, ...]], ...]
    series: tuple[str, ...]
    shape: ClassVar[str] = "strip"


@dataclass(frozen=True, kw_only=True)
class Heat(Part):
    """A square of values between -1 and 1; None where there is none.

    Attributes:
        labels: of rows and of columns.
        values: a tuple a row.
    """

    labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    shape: ClassVar[str] = "heat"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value with the ends of its range, and in words."""

    label: str
    value: float
    low: float
    high: float
    title: str


@dataclass(frozen=True, kw_only=True)
class Bars(Part):
    """Values from zero, with their ranges."""

    rows: tuple[Bar, ...]
    shape: ClassVar[str] = "bars"


@dataclass(frozen=True, kw_only=True)
class Lines(Part):
    """Curves.

    Attributes:
        x_label, y_label: of the axes.
        lines: (name, points).
        spreads: (x, low, high) of each line's points; none where nothing is said.
        x_log: whether the horizontal axis is logarithmic; its values are above 0.
    """

    x_label: str
    y_label: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]
    spreads: tuple[tuple[tuple[float, float, float], ...], ...] = ()
    x_log: bool = False
    shape: ClassVar[str] = "lines"


@dataclass(frozen=True, kw_only=True)
class Table(Part):
    """Text in rows; the first column names the row, the others are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shape: ClassVar[str] = "table"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A question and what answers it."""

    title: str
    text: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that a study's report needs.

    Attributes:
        name: of the study.
        kind: of it.
        lead: the answer in a sentence or two.
        sections: in the order of reading.
        numbers: the same as data, for machines.
        notes: what the reader should know: failures, cells that are missing, costs that differ.
        study: as TOML.
        environment: versions, machine, and which code wrote the results.
    """

    name: str
    kind: str
    lead: str = ""
    sections: tuple[Section, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    study: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Return what machines read: everything but the pictures."""
        kept = {key: value for key, value in asdict(self).items() if key != "sections"}
        return {"espalier_findings": 1, **kept}

    def to_json(self) -> str:
        """Return ``to_data`` as JSON; what cannot be told is null."""
        return json.dumps(_finite(self.to_data()), indent=1, allow_nan=False)


def _finite(data: Any) -> Any:
    """Return plain data with None in place of NaN and infinities."""
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data if not isinstance(data, float) or abs(data) < float("inf") else None
