"""The page: headline numbers, training, widths, what is frozen and why, settings, environment.

Everything that comes from a run is escaped by the template engine; the page holds no script and asks no network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2

from ..core import Frozen
from ..core.run import Measures, Run, Width
from . import charts


@dataclass(frozen=True)
class Card:
    """One headline number; ``share`` is after / before, in [0, 1], for its bar."""

    label: str
    before: str
    after: str
    change: str
    share: float | None


@dataclass(frozen=True)
class Reason:
    """Frozen axes that share a reason."""

    text: str
    axes: tuple[Frozen, ...]


def render(run: Run) -> str:
    """Return the report of ``run`` as one self-contained HTML page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["bytes"] = show_bytes
    template = environment.from_string(files("espalier.report").joinpath("page.html.jinja").read_text(encoding="utf-8"))
    stages = [epoch.stage for epoch in run.history]
    accuracies = [None if e.accuracy is None else 100 * e.accuracy for e in run.history]
    curves = [
        charts.curve("Validation accuracy, %", " %", accuracies, stages),
        charts.curve("Training loss", "", [epoch.loss for epoch in run.history], stages),
    ]
    return template.render(
        run=run,
        cards=list(cards(run)),
        curves=[curve for curve in curves if curve is not None],
        chart=charts,
        widths=run.widths,
        widest=max((width.before for width in run.widths), default=1),
        units=units(run.widths),
        reasons=reasons(run.frozen),
        style=files("espalier.report").joinpath("page.css").read_text(encoding="utf-8"),
    )


def cards(run: Run) -> Iterator[Card]:
    """Yield the headline numbers that were measured: accuracy first, then costs."""
    before, after = run.before, run.after
    if before.accuracy is not None and after.accuracy is not None:
        points = 100 * (after.accuracy - before.accuracy)
        change = f"{points:+.2f} points".replace("-", "\N{MINUS SIGN}")
        yield Card("Test accuracy", f"{100 * before.accuracy:.2f} %", f"{100 * after.accuracy:.2f} %", change, None)
    for name, label, show in _COSTS:
        old, new = getattr(before, name), getattr(after, name)
        if old and new is not None:
            share = run.latency_ratio[1] if name == "latency_ms" and run.latency_ratio else new / old
            yield Card(label, show(old), show(new), _change(name, share, run), min(share, 1.0))


def reasons(frozen: tuple[Frozen, ...]) -> list[Reason]:
    """Return the frozen axes by reason, the commonest first."""
    by_reason: dict[str, list[Frozen]] = {}
    for axis in frozen:
        by_reason.setdefault(axis.reason, []).append(axis)
    return [Reason(text, tuple(axes)) for text, axes in sorted(by_reason.items(), key=lambda item: -len(item[1]))]


def units(widths: tuple[Width, ...]) -> tuple[int, int]:
    """Return the units of all groups, before and after."""
    return sum(width.before for width in widths), sum(width.after for width in widths)


def show_count(value: float) -> str:
    """Return a count in three digits: 1.23 M."""
    for power, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= power:
            return f"{value / power:.3g}{suffix}" if value < 999.5 * power else f"{value / power:.0f}{suffix}"
    return f"{value:.3g}"


def show_bytes(value: float) -> str:
    """Return bytes in three digits: 1.23 MB."""
    text = show_count(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def _change(name: str, share: float, run: Run) -> str:
    if name == "latency_ms" and run.latency_ratio:
        low, _, high = run.latency_ratio
        return f"{100 * share:.0f} % of before (95 % interval {100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * share:.1f} % of before"


_COSTS: tuple[tuple[str, str, Any], ...] = (
    ("macs", "MACs", show_count),
    ("params", "Parameters", show_count),
    ("size_bytes", "Size", show_bytes),
    ("activations", "Peak activations", show_count),
    ("latency_ms", "Latency", lambda value: f"{value:.3g} ms"),
)

assert {name for name, _, _ in _COSTS} <= set(
    Measures.__dataclass_fields__
)  # a card without a measure would stay empty
