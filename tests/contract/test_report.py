"""The report: whole without network or script, everything escaped, at every stage of a run."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from espalier.core import FileError, Frozen
from espalier.core.run import Epoch, Measures, Run, Width
from espalier.report import charts, page, render

HOSTILE = "<script>alert('x')</script>\"&'"

EPOCHS = tuple(
    Epoch(stage=stage, epoch=i + 1, loss=1 / (i + 1), accuracy=1 - 0.4 / (i + 1), lr=0.1, seconds=0.5)
    for i, stage in enumerate(["training"] * 4 + ["fine-tuning"] * 4)
)

RUN = Run(
    name="demo-1",
    model="espalier:digits_cnn",
    data="digits",
    settings={"macs": 0.3, "params": None, "keep": ["stem*", "head"], "epochs": 4},
    environment={"torch": "2.13"},
    status="finished",
    started="2026-01-01T00:00:00+00:00",
    finished="2026-01-01T00:01:00+00:00",
    before=Measures(macs=8_000_000, params=130_000, activations=20_000, size_bytes=520_000, accuracy=0.987),
    after=Measures(macs=2_400_000, params=36_000, activations=9_000, size_bytes=144_000, accuracy=0.984),
    latency_ratio=(0.5, 0.52, 0.56),
    history=EPOCHS,
    widths=(
        Width(group="a.weight:0", before=32, after=7, slots=5),
        Width(group="b.weight:0", before=64, after=64, slots=3),
    ),
    frozen=(
        Frozen("head.weight", 0, 10, "it is an output of the model", "model.py:12"),
        Frozen("head.bias", 0, 10, "it is an output of the model"),
        Frozen("x", 1, 3, "aten.sort has no rule"),
    ),
    proof="1 of 1 cuts proved",
    notes=("a note",),
    files={"model.safetensors": 150_000},
)


class Page(HTMLParser):
    """Checks that tags close in order, and collects text, tags and attributes."""

    VOID = {"meta", "br", "link", "img"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def test_a_run_survives_json_both_ways() -> None:
    assert Run.from_json(RUN.to_json()) == RUN
    empty = Run(name="x", model="y", data="z")
    assert Run.from_json(empty.to_json()) == empty


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"espalier_run": 2}',
        '{"espalier_run": 1}',
        RUN.to_json().replace('"finished",', '"gone",'),
    ]
    + [
        RUN.to_json().replace(old, new)
        for old, new in [("8000000", '"many"'), ('"history"', '"story"'), ("32,", "true,")]
    ]
    + [RUN.to_json()[:-20], "[" * 100_000],
)
def test_what_is_no_run_gets_one_error(text: str) -> None:
    with pytest.raises(FileError, match="run"):
        Run.from_json(text)


def test_the_page_shows_what_the_run_holds() -> None:
    html = render(RUN)
    text = Page(html).text
    for shown in ["98.40 %", "before 98.70 %", "\N{MINUS SIGN}0.30 points", "2.4 M", "30.0 % of before", "144 kB"]:
        assert shown in text
    for shown in ["71 of 96 units", "it is an output of the model (2)", "model.py:12", "1 of 1 cuts proved", "a note"]:
        assert shown in re.sub(r"\s+", " ", text.replace(" of  ", " of "))
    assert "stem*, head" in text and "params" not in text
    assert html.count("<path") == 2 and html.count("<circle") == 2 * len(EPOCHS)
    assert "This run" not in text


def test_latency_shows_its_interval() -> None:
    measures = [Measures(latency_ms=ms, latency_spread_ms=0.1) for ms in (4.0, 2.0)]
    (card,) = page.cards(dataclasses.replace(RUN, before=measures[0], after=measures[1]))
    assert card.after == "2 ms" and card.change == "52 % of before (95 % interval 50 to 56)" and card.share == 0.52


def test_the_page_needs_no_network_and_no_script() -> None:
    found = Page(render(RUN))
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert not [pair for pair in found.attributes if pair[0] in ("src", "href") or pair[0].startswith("on")]
    assert "url(" not in render(RUN) and "@import" not in render(RUN) and "default-src 'none'" in render(RUN)


def test_the_page_adapts_to_dark_phone_and_paper() -> None:
    html = render(RUN)
    assert "prefers-color-scheme: dark" in html and "@media print" in html and "width=device-width" in html


def test_everything_is_escaped() -> None:
    hostile = Run(
        name=HOSTILE,
        model=HOSTILE,
        data=HOSTILE,
        settings={HOSTILE: HOSTILE, "list": [HOSTILE], "map": {HOSTILE: 1}},
        environment={HOSTILE: HOSTILE},
        started=HOSTILE,
        history=tuple(dataclasses.replace(epoch, stage=epoch.stage + HOSTILE) for epoch in EPOCHS),
        widths=(Width(group=HOSTILE, before=2, after=1, slots=1),),
        frozen=(Frozen(HOSTILE, 0, 1, HOSTILE, HOSTILE),),
        proof=HOSTILE,
        notes=(HOSTILE,),
        files={HOSTILE: 1},
    )
    found = Page(render(hostile))
    assert "script" not in found.tags and HOSTILE in found.text


UNFINISHED = {"running": "has not ended yet", "interrupted": "was interrupted", "failed": "failed"}


@pytest.mark.parametrize(("status", "words"), UNFINISHED.items())
def test_an_unfinished_run_has_a_page_that_says_so(status: str, words: str) -> None:
    run = dataclasses.replace(RUN, status=status, after=Measures(), before=Measures(), history=EPOCHS[:1])
    found = Page(render(run))
    assert f"This run {words}: what" in found.text and "Training" not in found.words
    bare = Page(render(Run(name="x", model="y", data="", status=status)))
    assert f"This run {words}: what" in bare.text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.993, 1.0), (-3, 250), (5, 5), (0, 0), (1e-9, 3e-9), (2e6, 9e6)])
def test_ticks_cover_the_values_in_few_round_steps(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12 and 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_a_curve_stays_inside_its_frame_and_marks_stages() -> None:
    found = charts.curve("loss", "", [2.0, None, 0.5, float("nan"), 1.0, 0.1], ["a", "a", "a", "b", "b", "b"])
    assert found is not None and len(found.points) == 4 and [mark.label for mark in found.marks] == ["b"]
    assert all(charts.LEFT <= p.x <= charts.WIDTH - charts.RIGHT for p in found.points)
    assert all(charts.TOP <= p.y <= charts.HEIGHT - charts.BOTTOM for p in found.points)
    assert found.points[0].y < found.points[1].y < found.points[3].y
    assert charts.curve("loss", "", [1.0, None], ["a", "a"]) is None
    assert charts.curve("loss", "", [1.0] * 200, ["a"] * 200) is not None


def test_counts_and_bytes_are_short() -> None:
    shown = {0: "0", 12: "12", 999: "999", 1234: "1.23 k", 999_600: "1000 k", 4_089_284_608: "4.09 G"}
    for value, text in shown.items():
        assert page.show_count(value) == text
    assert page.show_bytes(512) == "512 B" and page.show_bytes(97_800_000) == "97.8 MB"
