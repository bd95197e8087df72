"""The report of a study: every picture is drawn, words are text, and a browser has nothing to complain of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from espalier.core.findings import Findings
from espalier.report import render_study

from .browser import needs_browser, opened
from .study_findings import made

HOSTILE = "</title><script>console.error('run')</script>\"'&{{ 7 * 7 }}"


def test_every_part_is_drawn_and_said() -> None:
    page = render_study(made(), folder="studies/a b")
    assert page.count('class="picture') == 4 and page.count('<circle class="mark') >= 3 and "<polyline" in page
    assert "1.00 [0.50, 1.50]" in page and "magnitude wins." in page
    assert "espalier study &#39;studies/a b/study.toml&#39; --out studies" in page
    assert "no run of it was done" in page  # the strip without rows
    places = [float(x) for x in re.findall(r'<circle class="mark[^>]*cx="([0-9.]+)"', page)]
    assert places[1] > places[0]  # 93.0 is to the right of 91.5


def test_a_page_needs_nothing_and_runs_nothing() -> None:
    page = render_study(made())
    assert "default-src 'none'" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_hostile_words_are_text() -> None:
    page = render_study(made(HOSTILE), folder=HOSTILE)
    assert "<script" not in page and "{{ 7" in page and "49" not in re.sub(r'="[^"]*"', "", page)


def test_findings_are_json_without_what_json_cannot_hold() -> None:
    data = json.loads(made().to_json())
    assert data["numbers"] == {"reduction": None, "cells": [[0.5, None]]} and "sections" not in data


def test_findings_of_nothing_are_a_page() -> None:
    assert "Do it again" in render_study(Findings(name="x", kind="heuristics"))


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("word", ["magnitude", HOSTILE], ids=["plain", "hostile"])
def test_the_console_is_silent(word: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_study(made(word)), encoding="utf-8")
    seen = opened(page)
    assert seen.console == () and seen.dom.count('<svg class="picture') == 4


@pytest.mark.slow
@needs_browser
def test_the_console_would_be_heard(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_study(made()).replace("</main>", "<script>1</script></main>"), encoding="utf-8")
    assert opened(page).console
