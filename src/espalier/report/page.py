"""The page: what came out, how it came about, where the work went, and everything needed to repeat it.

Everything that comes from a run is escaped by the template engine; the page asks no network, and reads well without
its script, which only makes its charts answer to a pointer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..core.run import Run, Width
from . import bars, charts, headline, numbers, story
from .script import Script, script
from .splits import splits


def render(run: Run, *, folder: str = "") -> str:
    """Return the report of ``run`` as one self-contained HTML page.

    Args:
        run: finished or not.
        folder: of the run, for the commands that the page shows; its name when not given.
    """
    path, curves = story.path_chart(run), story.training_charts(run)
    drawn = [chart for chart in (path, *curves) if chart is not None]
    return template("page.html.jinja").render(
        run=run,
        banner=headline.banner(run, folder),
        sentence=numbers.tied(headline.sentence(run)),
        cards=list(headline.cards(run)),
        path=path,
        curves=curves,
        stages=list(story.stages(run)),
        chart=charts,
        widths=bars.width_bars(run),
        units=units(run.widths),
        densities=bars.density_bars(run),
        sparse=bars.sparse_words(run),
        binarised=bars.binary_bars(run),
        quantized=bars.quantized_bars(run),
        bits=bars.quantized_words(run),
        layers=bars.layer_bars(run),
        reasons=bars.reasons(run.frozen),
        splits=splits(run),
        settings=_told(run.settings),
        environment=_told(run.environment),
        lasted=_lasted(run),
        folder=folder or run.name,
        script=script([chart.to_data() for chart in drawn]) if drawn else Script("", "", "", "'none'"),
        style=files("espalier.report").joinpath("page.css").read_text(encoding="utf-8"),
    )


def breakable(name: str) -> Markup:
    """Return a dotted name that may go on in the next line after a dot, a slash or an underscore, and nowhere else."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[./_:])", name))


def units(widths: Iterable[Width]) -> tuple[int, int]:
    """Return the units of all groups, before and after."""
    found = tuple(widths)
    return sum(width.before for width in found), sum(width.after for width in found)


def template(name: str) -> jinja2.Template:
    """Return a template of this room, with everything that it may call."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files("espalier.report").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=numbers.show_bytes,
        ms=numbers.show_ms,
        times=numbers.show_times,
        time=numbers.show_time,
        seconds=numbers.show_seconds,
    )
    environment.filters.update(tied=numbers.tied, breakable=breakable)
    return environment.get_template(name)


def _told(pairs: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as text, without those that say nothing."""
    lists = {name: ", ".join(map(str, value)) for name, value in pairs.items() if isinstance(value, (list, tuple))}
    plain = {name: lists.get(name, "" if value is None else str(value)) for name, value in pairs.items()}
    return {name.replace("_", " "): value for name, value in plain.items() if value}


def _lasted(run: Run) -> str:
    """Return how long the run took from its beginning to its end, or "" where that is not known."""
    try:
        seconds = (datetime.fromisoformat(run.finished) - datetime.fromisoformat(run.started)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return numbers.show_seconds(seconds)
