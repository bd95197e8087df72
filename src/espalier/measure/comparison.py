"""Before and after, as data and as a table."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from torch import nn

from ..core import Cost, KindError
from ..core.run import Measures
from ..graph.files import stored_tensors
from .latency import race

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Row:
    """One measure of both networks; ``ratio`` is after / before."""

    label: str
    before: str
    after: str
    ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """What two networks cost.

    Attributes:
        before, after: measures.
        latency_ratio: after / before as (low, median, high); None where latency was not measured.
        conditions: how latency was measured, in words.
        metric: what the score is of.
    """

    before: Measures
    after: Measures
    latency_ratio: tuple[float, float, float] | None = None
    conditions: str = field(default="")
    metric: str = "accuracy"

    def to_data(self) -> dict[str, Any]:
        """Return everything as JSON-ready data, ratios included."""
        ratios = {
            name: after / before
            for name, before in asdict(self.before).items()
            if name != "latency_spread_ms" and before and (after := getattr(self.after, name)) is not None
        }
        if self.latency_ratio is not None:
            ratios["latency_ms"] = self.latency_ratio[1]
        return {**asdict(self), "ratios": ratios}

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the table, only of what was measured."""
        ratios = self.to_data()["ratios"]
        for name, (label, show) in LABELS.items():
            before, after = getattr(self.before, name), getattr(self.after, name)
            if before is not None and after is not None:
                score = name == "accuracy"
                title = label.replace(name, self.metric.replace("_", " ")) if score else label
                yield Row(title, show(before), show(after), None if score else ratios.get(name))

    def __rich__(self) -> Group:
        """Return the table, and under it how latency was measured."""
        table = Table()
        table.add_column("")
        for name in ("before", "after", "ratio"):
            table.add_column(name, justify="right")
        for row in self.rows():
            ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
            if row.label == LABELS["latency_ms"][0] and self.latency_ratio is not None:
                ratio = "{1:.3f} [{0:.3f}, {2:.3f}]".format(*self.latency_ratio).replace("[", r"\[")
            table.add_row(row.label, row.before, row.after, ratio)
        return Group(table, *([self.conditions] if self.conditions else []))

    def __str__(self) -> str:
        """Return the table as text, so that plain ``print`` shows it."""
        console = Console(file=io.StringIO(), width=88)
        console.print(self)
        return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def compare(
    before: nn.Module,
    after: nn.Module,
    example: Any,
    *,
    latency: bool = True,
    rounds: int = 15,
    costs: tuple[Cost, Cost] | None = None,
    backend: str = "eager",
) -> Comparison:
    """Measure two networks: MACs, parameters, activations at batch 1, bytes, and latency on ``example``.

    Args:
        before, after: the networks; neither is changed.
        example: a tensor, a tuple of arguments, or a mapping of keywords.
        latency: time both in turns.
        rounds: timings of each.
        costs: what they cost, when the caller knows it; otherwise both are traced.
        backend: what runs them for latency.

    Raises:
        ModelError: a model does not run on the example.
        KindError: no rounds.
    """
    if rounds < 1:
        raise KindError(f"compare takes at least one round, not {rounds!r}")
    one, two = costs or (_cost(before, example), _cost(after, example))
    measured = [
        {"macs": cost.macs, "params": cost.params, "activations": cost.activations, "size_bytes": size_bytes(model)}
        for cost, model in ((one, before), (two, after))
    ]
    if not latency:
        return Comparison(Measures(**measured[0]), Measures(**measured[1]))
    timed = race(before, after, example, rounds=rounds, backend=backend)
    return Comparison(
        Measures(**measured[0], latency_ms=timed.before.median_ms, latency_spread_ms=timed.before.spread_ms),
        Measures(**measured[1], latency_ms=timed.after.median_ms, latency_spread_ms=timed.after.spread_ms),
        timed.ratio,
        f"latency: {timed.conditions}",
    )


def size_bytes(model: nn.Module) -> int:
    """Return the bytes of parameters and persistent buffers, tied ones once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in stored_tensors(model).values())


def _cost(model: nn.Module, example: Any) -> Cost:
    from ..graph import trace  # the engine is heavy, and callers that know the costs need none of it

    return trace(model, example).cost()


def _whole(value: float) -> str:
    return f"{value:,.0f}"


LABELS = {
    "macs": ("MACs", _whole),
    "params": ("parameters", _whole),
    "activations": ("peak activations", _whole),
    "size_bytes": ("bytes", _whole),
    "latency_ms": ("latency, ms", lambda value: f"{value:.2f}"),
    "accuracy": ("test accuracy, %", lambda value: f"{100 * value:.2f}"),
}
