"""The report: whole without network, readable without script, everything escaped, at every stage of a run."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import re

import pytest
from scipy import stats

from espalier.core import FileError
from espalier.core.run import Latency, Measures, Run
from espalier.report import bars, charts, headline, numbers, render, script, story

from .report_runs import EPOCHS, HOSTILE, HOSTILE_RUN, RUN, Page


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
    html = render(RUN, folder="runs/demo-1")
    text = re.sub(r"\s+", " ", Page(html).text)
    for shown in [
        "98.70 % → 98.40 %",
        "\N{MINUS SIGN}0.30 points",
        "8 M → 2.4 M",
        "30.0 % of before",
        "520 kB → 144 kB",
    ]:
        assert shown in text
    for shown in ["71 of 96 units", "it is an output of the model 2", "model.py:12", "1 of 1 cuts proved", "a note"]:
        assert shown in text
    for shown in ["b.weight:1, reader", "stem*, head", "4 M 1 M", "2.00 0.04", "espalier run runs/demo-1/recipe.toml"]:
        assert shown in text
    assert "max_drop = 1.0" in text and "params" not in text and "This run" not in text


def test_the_headline_is_one_sentence_of_what_was_gained() -> None:
    assert headline.sentence(RUN) == (
        "3.33× fewer MACs, 3.61× fewer parameters and 1.92× faster, "
        "at 98.40 % test accuracy, \N{MINUS SIGN}0.30 points against before"
    )
    maybe = dataclasses.replace(RUN, latency_ratio=(0.9, 0.95, 1.01))
    assert "faster" not in headline.sentence(maybe)
    assert headline.sentence(Run(name="x", model="y", data="")) == ""


def test_the_metric_says_how_many_examples_differ_and_how_long_the_run_trained_on() -> None:
    gloss = next(headline.cards(RUN)).gloss
    assert "and the difference is -1 of them" in gloss  # 0.3 points of 360
    assert gloss.endswith("; after the network before, the run trained for 4 epochs in all")
    late = dataclasses.replace(
        EPOCHS[0], stage="training"
    )  # a second training, behind a cut, is none of the dense one's
    assert "for 5 epochs" in next(headline.cards(dataclasses.replace(RUN, history=(*EPOCHS, late)))).gloss
    assert "trained for" not in next(headline.cards(dataclasses.replace(RUN, history=EPOCHS[:4]))).gloss


def test_latency_shows_its_interval() -> None:
    measures = [Measures(latency_ms=ms, latency_spread_ms=0.1) for ms in (4.0, 2.0)]
    timed = Latency(conditions="eager, 1 thread", before_ms=4, after_ms=2, ratio=(0.5, 0.52, 0.56))
    run = dataclasses.replace(RUN, before=measures[0], after=measures[1], latencies=(timed,))
    (card,) = headline.cards(run)
    assert card.after == "2 ms" and card.change == "52 % of before (95 % interval 50 to 56)" and card.share == 0.52
    assert card.interval == (0.5, 0.56) and card.gloss == "one forward pass: eager, 1 thread"
    assert "Time of one forward pass" not in render(run)
    for target, words in ((1.95, "1.95 ms met"), (1.6, "1.6 ms missed by 25 %")):
        asked = dataclasses.replace(timed, target_ms=target)
        text = re.sub(r"\s+", " ", Page(render(dataclasses.replace(run, latencies=(timed, asked)))).text)
        assert "Asked for" in text and words in text


def test_the_page_says_which_data_decided_what() -> None:
    text = re.sub(r"\s+", " ", Page(render(RUN)).text)
    assert "Decided which cuts were kept: 2 tried, 1 undone." in text
    assert "Read once, at the end at 2026-01-01 00:00:59 UTC, by dense and small networks in the same pass" in text
    assert "360 examples" in text and "64bad0c24adc" in text
    given = dataclasses.replace(RUN, recipe="macs = 0.3\n", readings=RUN.readings * 2)
    text = Page(render(given)).text
    assert "Nothing was chosen by it" in text and "Read 2 times" in text
    whole = 'recover = [\n    "least_squares",\n]\n'
    text = Page(render(dataclasses.replace(RUN, recipe=whole, ranked_on_train=True))).text
    assert "It trained the weights, ranked the units by importance and repaired the network after cuts." in text
    assert "It trained the weights." in Page(render(dataclasses.replace(RUN, recipe="recover = []\n"))).text
    assert "Not read yet" in Page(render(dataclasses.replace(RUN, readings=()))).text


def test_the_interval_of_a_proportion_is_wilsons() -> None:
    expected = stats.binomtest(354, 360).proportion_ci(method="wilson")
    assert numbers.proportion_interval(354 / 360, 360) == pytest.approx((expected.low, expected.high), abs=1e-5)
    assert numbers.proportion_interval(1.0, 10)[1] == 1.0 and numbers.proportion_interval(0.0, 10)[0] == 0.0


def test_the_path_separates_what_was_kept_from_what_was_undone() -> None:
    chart = story.path_chart(RUN)
    assert chart is not None
    way, *marks = chart.series
    assert [dot.x for dot in way.dots] == [100, 30, 30]
    assert {series.role: len(series.dots) for series in marks} == {"dense": 1, "cut": 1, "trained": 1, "undone": 1}
    assert marks[3].dots[0].title == "round-2: trained, undone. accuracy 90.00 %, 1.2 M MACs (15.0 %)"
    assert story.path_chart(dataclasses.replace(RUN, path=RUN.path[:1])) is None
    assert list(story.stages(RUN)) == [("training", 1, 4, 2.0), ("fine-tuning", 5, 8, 2.0)]


def test_a_long_network_is_shown_in_short() -> None:
    many = dataclasses.replace(RUN, widths=RUN.widths * 100, layers=RUN.layers * 100)
    assert bars.width_bars(many).compact and not bars.width_bars(RUN).compact
    html = render(many)
    assert html.count('class="strip"') == 3 and "All 200 rows" in html
    assert "1 layers that take" not in html and "100 layers that take less than 1 %" in html


def outside(html: str) -> str:
    """Return the page without what its scripts hold."""
    return re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL)


def test_the_page_needs_no_network_and_lets_nothing_but_its_own_scripts_run() -> None:
    html = render(RUN)
    found = Page(html)
    assert not {"link", "img", "iframe", "object"} & set(found.tags) and found.tags.count("script") == 3
    assert not [pair for pair in found.attributes if pair[0] in ("src", "href") or pair[0].startswith("on")]
    bare = outside(html)
    assert not any(mark in bare for mark in ("url(", "@import", "http:", "https:"))
    (policy,) = (value for name, value in found.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src 'sha256-")
    page_script = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)[0]
    plotly = base64.b64decode(re.findall(r'id="plotly">([^<]*)<', html)[0])
    for text in (page_script.encode(), gzip.decompress(plotly)):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" in policy
    assert len(html) < 2_500_000


def test_a_page_without_charts_holds_no_script() -> None:
    html = render(Run(name="x", model="y", data=""))
    assert "<script" not in html and len(html) < 40_000
    assert any(value.endswith("script-src 'none'") for _, value in Page(html).attributes)


def test_every_chart_has_a_drawing_for_paper_and_for_no_script() -> None:
    bare = outside(render(RUN))
    assert bare.count('class="still"') == 4 and bare.count("<polyline") == 4
    assert len(re.findall(r'<circle class="dot"[^>]*><title>round-1: trained', bare)) == 1


def test_the_page_adapts_to_dark_phone_and_paper() -> None:
    html = render(RUN)
    assert "prefers-color-scheme: dark" in html and "@media print" in html and "width=device-width" in html


def test_everything_is_escaped() -> None:
    html = render(HOSTILE_RUN, folder=HOSTILE)
    found = Page(html)
    assert found.tags.count("script") == 3 and "<script>alert" not in html and HOSTILE in found.text
    (data,) = re.findall(r'id="charts">(.*?)</script>', html, flags=re.DOTALL)
    assert HOSTILE in json.loads(data)[0]["y_label"]


def test_json_inside_a_script_ends_nothing() -> None:
    hostile = "</script><!--<script>\u2028\u2029&"
    text = script.safe_json([hostile])
    assert json.loads(text) == [hostile] and not set("<>&\u2028\u2029") & set(text)


UNFINISHED = {"running": "has not ended yet", "interrupted": "was interrupted", "failed": "failed"}


@pytest.mark.parametrize(("status", "words"), UNFINISHED.items())
def test_an_unfinished_run_has_a_page_that_says_so(status: str, words: str) -> None:
    run = dataclasses.replace(RUN, status=status, after=Measures(), before=Measures(), history=EPOCHS[:1])
    text = re.sub(r"\s+", " ", Page(render(run, folder="runs/demo-1")).text)
    assert f"This run {words}. What follows" in text and "Training" not in text.split()
    assert "espalier resume runs/demo-1" in text and text.count("a note") == 1
    bare = Page(render(Run(name="x", model="y", data="", status=status)))
    assert f"This run {words}" in bare.text and "espalier resume x" in bare.text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.993, 1.0), (-3, 250), (5, 5), (0, 0), (1e-9, 3e-9), (2e6, 9e6)])
def test_ticks_cover_the_values_in_few_round_steps(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12 and ticks[-1] >= high - 1e-12 and 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_a_curve_stays_inside_its_frame_and_marks_stages() -> None:
    stages = ["a", "a", "a", "b", "b", "b"]
    found = charts.curve("loss", "loss", "", [2.0, None, 0.5, float("nan"), 1.0, 0.1], stages)
    assert found is not None
    drawn = found.drawing
    ((dots),) = (series.dots for series in drawn.series)
    assert len(dots) == 4 and [mark.label for mark in drawn.marks] == ["b"] and found.marks[0].at == 3.5
    assert all(charts.LEFT <= p.x <= charts.WIDTH - charts.RIGHT for p in dots)
    assert all(charts.TOP <= p.y <= charts.HEIGHT - charts.BOTTOM for p in dots)
    assert dots[0].y < dots[1].y < dots[3].y
    assert charts.curve("loss", "loss", "", [1.0, None], ["a", "a"]) is None
    long = charts.curve("loss", "loss", "", [1.0] * 200, ["a"] * 200)
    assert long is not None and len(long.drawing.x_ticks) <= 10


def test_counts_and_bytes_are_short() -> None:
    shown = {0: "0", 12: "12", 999: "999", 1234: "1.23 k", 999_600: "1000 k", 4_089_284_608: "4.09 G"}
    for value, text in shown.items():
        assert numbers.show_count(value) == text
    assert numbers.show_bytes(512) == "512 B" and numbers.show_bytes(97_800_000) == "97.8 MB"


def test_milliseconds_and_times_are_short() -> None:
    shown = {0.0: "0 ms", 0.0322: "32.2 µs", 0.5: "0.5 ms", 12.345: "12.3 ms", 1234.5: "1,234 ms"}
    for value, text in shown.items():
        assert numbers.show_ms(value) == text
    assert [numbers.show_seconds(s) for s in (3.14159, 200, 3720)] == ["3.14 s", "3 min 20 s", "1 h 02 min"]
    assert numbers.show_time("2026-01-31T12:34:56+01:00") == "2026-01-31 12:34:56 UTC+01:00"
    assert numbers.show_points(0.0) == "±0.00 points" and numbers.show_times(2.5) == "2.5×"
