"""``espalier runs``: the ledger, and runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ..core.run import Run
from ..recipes.folders import ledger
from ..recipes.folders.folder import RUN, read_run
from ..recipes.folders.ledger import Line
from ..recipes.folders.owner import status_of
from .answer import Answer
from .options import Runs


def runs(chosen: Runs) -> Answer:
    """List all runs, or compare those that are named."""
    root = Path(chosen.out)
    if not chosen.names:
        lines = [replace(line, status=status_of(root / line.name, line.status)) for line in ledger.sync(root)]
        if not lines:
            return Answer([], (f"no runs in {root}; --out FOLDER looks in another folder",))
        stopped = [f"{line.name} was stopped: espalier resume {root / line.name}" for line in lines if _goes_on(line)]
        return Answer([asdict(line) for line in lines], (listed(lines), *stopped))
    folders = {name: Path(name) if (Path(name) / RUN).is_file() else root / name for name in chosen.names}
    found = {
        name: read_run(folder) if folder == Path(name) else ledger.find(root, name) for name, folder in folders.items()
    }
    status = [status_of(folders[name], run.status) for name, run in found.items()]
    return Answer({name: json.loads(run.to_json()) for name, run in found.items()}, (compared(found, status),))


def _goes_on(line: Line) -> bool:
    return line.status in ("stopped", "interrupted")


def listed(lines: list[Line]) -> Table:
    """Return one row a run: its name whole, and below it what it was done to."""
    table = Table()
    table.add_column("run", overflow="fold", ratio=1)
    table.add_column("status", no_wrap=True)
    for head in ("MACs", "params", "latency", "metric, %"):
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        ratios = [_number(value, 3) for value in (line.macs_ratio, line.params_ratio, line.latency_ratio)]
        scores = [_number(value and 100 * value, 2) for value in (line.accuracy_before, line.accuracy_after)]
        what = escape(f"{line.model} on {line.data}")
        score = " \N{RIGHTWARDS ARROW} ".join(filter(None, scores))
        table.add_row(f"{escape(line.name)}\n[dim]{what}[/dim]", line.status, *ratios, score)
    return table


def compared(found: dict[str, Run], status: list[str]) -> Table:
    """Return one column a run: what differs in their recipes first, then what they measured."""
    table = Table("")
    for name in found:
        table.add_column(escape(name), overflow="fold")
    runs = list(found.values())
    table.add_row("model", *(escape(run.model) for run in runs))
    table.add_row("data", *(escape(run.data) for run in runs))
    table.add_row("status", *status)
    for title, values in (*_differing(runs), *_measured(runs)):
        table.add_row(escape(title), *map(escape, values))
    return table


def _differing(runs: list[Run]) -> Iterator[tuple[str, list[str]]]:
    """Yield the settings that are not the same in all runs."""
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = [str(run.settings.get(key, "")) for run in runs]
        if len(set(values)) > 1:
            yield key, values


def _measured(runs: list[Run]) -> Iterator[tuple[str, list[str]]]:
    """Yield what any of the runs has measured."""
    for measure in ("macs", "params", "size_bytes", "latency_ms", "accuracy"):
        for when in ("before", "after"):
            values = [getattr(getattr(run, when), measure) for run in runs]
            if any(value is not None for value in values):
                digits = {"accuracy": 4, "latency_ms": 3}.get(measure, 0)
                title = "/".join(sorted({run.metric for run in runs})) if measure == "accuracy" else measure
                yield f"{title} {when}", [_number(value, digits) for value in values]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
