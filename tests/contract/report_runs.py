"""A run to report, a hostile one, and a page as a reader takes it in."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from espalier.core import Frozen
from espalier.core.run import Epoch, Latency, Layer, Measures, Point, Reading, Run, Width

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
    layers=(
        Layer(name="a", macs_before=4_000_000, macs_after=1_000_000, ms_before=2.0, ms_after=0.04),
        Layer(name="bn", macs_before=0, macs_after=0, ms_before=0.01, ms_after=0.01),
    ),
    history=EPOCHS,
    path=(
        Point(stage="dense", kind="dense", macs=8_000_000, params=130_000, score=0.98),
        Point(stage="round-1", kind="cut", macs=2_400_000, params=36_000, score=0.61),
        Point(stage="round-1", kind="trained", macs=2_400_000, params=36_000, score=0.97),
        Point(stage="round-2", kind="trained", macs=1_200_000, params=18_000, score=0.9, accepted=False),
    ),
    readings=(
        Reading(
            examples=360,
            targets_sha256="64bad0c24adc42cce0933d43",
            metrics={"dense": {"accuracy": 0.987}, "small": {"accuracy": 0.984}},
            at="2026-01-01T00:00:59+00:00",
        ),
    ),
    splits={"train": 20, "validation": 3, "test": 6},
    recipe='[[steps]]\nkind = "prune"\nmax_drop = 1.0\n',
    widths=(
        Width(group="a.weight:0", before=32, after=7, slots=2, places=("a.weight:0, producer", "b.weight:1, reader")),
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


HOSTILE_RUN = Run(
    name=HOSTILE,
    model=HOSTILE,
    data=HOSTILE,
    metric=HOSTILE,
    recipe=HOSTILE,
    settings={HOSTILE: HOSTILE, "list": [HOSTILE], "map": {HOSTILE: 1}},
    environment={HOSTILE: HOSTILE},
    status="failed",
    started=HOSTILE,
    before=RUN.before,
    after=RUN.after,
    latency_ratio=RUN.latency_ratio,
    latencies=(Latency(conditions=HOSTILE, before_ms=1, after_ms=1, ratio=(1, 1, 1), target_ms=1),),
    layers=(Layer(name=HOSTILE, macs_before=1, macs_after=1),),
    history=tuple(dataclasses.replace(epoch, stage=epoch.stage + HOSTILE) for epoch in EPOCHS),
    path=tuple(dataclasses.replace(point, stage=HOSTILE) for point in RUN.path),
    readings=(Reading(examples=1, targets_sha256=HOSTILE, metrics={HOSTILE: {}}, at=HOSTILE),),
    splits={"train": 1, "validation": 1, "test": 1},
    widths=(Width(group=HOSTILE, before=2, after=1, slots=1, places=(HOSTILE,)),),
    frozen=(Frozen(HOSTILE, 0, 1, HOSTILE, HOSTILE),),
    proof=HOSTILE,
    notes=(HOSTILE, f"again {HOSTILE}"),
    files={HOSTILE: 1},
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
        self.feed(html.replace("<wbr>", ""))  # where a name may go on in the next line
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
