"""The report fits a phone: measured in a browser where there is one."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path

import pytest

from espalier.core import Frozen
from espalier.core.run import Run, Width
from espalier.report import render

from .browser import needs_browser, opened
from .report_runs import RUN

PATH = "/a/very/long/path/that/cannot/break/anywhere/because/it/holds/no/space/at/all/own_model.py"
LONG = dataclasses.replace(
    RUN,
    name="espalier-cifar_resnet20-20260101-000000",
    model=f"{PATH}:build_network",
    data=f"imagefolder:{PATH}",
    settings={"a_setting_with_a_long_name_of_many_words": "x" * 60},
    widths=tuple(Width(group=f"encoder.layers.{i}.attention.in_proj:0.1", before=9, after=3, slots=2) for i in (1, 2)),
    frozen=(Frozen("encoder.layers.0.self_attention.in_proj_weight", 0, 10, f"no rule at {PATH}", f"{PATH}:1234"),),
    notes=(f"FileError: {PATH}",),
    files={"a-very-long-file-name-for-a-model-that-was-compressed.safetensors": 1},
)


def scrolled(run: Run, width: int, folder: Path) -> tuple[int, int]:
    """Return how wide the page's content and its window are, in pixels."""
    page = re.sub(r"<meta http-equiv[^>]*>", "", render(run))  # so that the frame around it may measure
    measure = "const d=document.querySelector('iframe').contentDocument.documentElement;"
    measure += "document.title='SIZE '+d.scrollWidth+' '+d.clientWidth+' END'"
    frame = f'<iframe style="border:0;width:{width}px;height:3000px" srcdoc="{html.escape(page)}"></iframe>'
    script = f"<script>addEventListener('load',()=>{{{measure}}})</script>"
    (folder / "frame.html").write_text(f"<!doctype html><body>{frame}{script}", encoding="utf-8")
    out = opened(folder / "frame.html").dom
    found = re.search(r"SIZE (\d+) (\d+) END</title>", out)
    assert found is not None, out[:500]
    return int(found[1]), int(found[2])


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("run", [RUN, LONG], ids=["short", "long"])
@pytest.mark.parametrize("width", [360, 420])
def test_no_page_scrolls_sideways_on_a_phone(run: Run, width: int, tmp_path: Path) -> None:
    content, window = scrolled(run, width, tmp_path)
    assert content == window > 300
