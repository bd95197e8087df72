"""The report in a real browser: it draws, says nothing on the console, and runs nothing that a run brought in."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from espalier.core.run import Run
from espalier.report import render

from .browser import needs_browser, opened
from .report_runs import HOSTILE_RUN, RUN

pytestmark = [pytest.mark.slow, needs_browser]
EMPTY = Run(name="x", model="y", data="")
LONG = dataclasses.replace(RUN, widths=RUN.widths * 100, layers=RUN.layers * 100, path=RUN.path * 10)


@pytest.mark.parametrize(
    ("run", "charts", "options"),
    [
        (RUN, 4, []),
        (RUN, 4, ["--blink-settings=preferredColorScheme=0"]),
        (LONG, 4, []),
        (HOSTILE_RUN, 4, []),
        (EMPTY, 0, []),
    ],
    ids=["light", "dark", "long", "hostile", "empty"],
)
def test_the_page_draws_its_charts_and_the_console_is_silent(
    run: Run, charts: int, options: list[str], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(run), encoding="utf-8")
    seen = opened(page, *options)
    assert seen.console == ()
    assert seen.dom.count('class="main-svg"') >= charts and seen.dom.count("js-plotly-plot") >= charts
    drawn = re.search(r'<html[^>]*data-charts="(\d+)"', seen.dom)
    assert int(drawn[1] if drawn else 0) == charts


def test_the_console_would_be_heard(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    injected = "<script>console.error('heard')</script></main>"
    page.write_text(render(RUN).replace("</main>", injected), encoding="utf-8")
    (message,) = opened(page).console  # refused by the policy, and the refusal is on the console
    assert "Content Security Policy" in message and "heard" not in message
