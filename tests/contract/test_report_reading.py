"""The report reads well: names whole, numbers beside their units, and nothing hidden behind something else."""

from __future__ import annotations

import dataclasses
import re

from espalier.core.run import Layer, Point
from espalier.report import bars, render, story

from .report_runs import RUN


def test_names_break_where_they_may_and_numbers_stay_with_their_units() -> None:
    html = render(RUN)
    assert "b.<wbr>weight:<wbr>1, reader" in html and "at 98.40\N{NO-BREAK SPACE}% test accuracy" in html
    (times,) = (one for one in bars.layer_bars(RUN) if one.title.startswith("Time"))
    assert times.title == "Time a layer, ms"  # one unit for all, so that they compare
    short = dataclasses.replace(
        RUN, layers=(Layer(name="a", macs_before=1, macs_after=1, ms_before=0.9, ms_after=0.04),)
    )
    (times,) = (one for one in bars.layer_bars(short) if one.title.startswith("Time"))
    assert (times.title, times.rows[0].before, times.rows[0].after) == ("Time a layer, µs", "900.0", "40.0")


def test_a_cut_that_training_did_not_change_is_still_seen() -> None:
    points = [Point(stage="1", kind=kind, macs=5, params=5, score=0.9) for kind in ("dense", "cut", "trained")]  # type: ignore[arg-type]
    chart = story.path_chart(dataclasses.replace(RUN, path=tuple(points)))
    assert chart is not None
    roles = [series.role for series in chart.series]
    assert roles.index("cut") > roles.index("trained")  # drawn later, and hollow: around it
    assert re.search(r"svg \.cut \{ fill: none; stroke:", render(RUN))
