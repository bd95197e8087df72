"""``espalier bench``: both networks on every runtime, in float32 and in int8, all in turns; and which are not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import torch
from rich.markup import escape
from rich.table import Table

from .. import backends
from ..backends.int8.runners import IN_INT8
from ..backends.protocol import BackendError, Prepared, Runner
from ..backends.registry import RUNNERS
from ..core import UnknownNameError
from ..core.processor import instructions
from ..measure import Turns, in_turns
from ..measure.machine import machine
from ..recipes.folders.located import located, names_model
from ..recipes.progress import each
from .answer import Answer
from .options import Bench
from .pair import Pair, from_name, from_run

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Timed:
    """What one backend took; ``reason`` says why where it did not run.

    Attributes:
        before_ms, after_ms: medians.
        ratio: after / before within a round: median with the ends of its 95 % interval, (low, median, high).
        speedup_before, speedup_after: the dense network in float32 on the same runtime, over each of them.
        kernels: what the result ran, and how often each in a pass.
    """

    backend: str
    version: str = ""
    before_ms: float | None = None
    after_ms: float | None = None
    ratio: Interval | None = None
    speedup_before: Interval | None = None
    speedup_after: Interval | None = None
    kernels: dict[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Ready:
    """A runtime with both networks."""

    version: str
    before: Prepared
    after: Prepared


def bench(chosen: Bench) -> Answer:
    """Time both networks and print a table."""
    for name in chosen.backends:
        if name not in RUNNERS:
            raise UnknownNameError("backend", name, RUNNERS)
    pair = (
        from_name(chosen.network, chosen.batch, chosen.macs)
        if names_model(chosen.network)
        else from_run(located(chosen.network), chosen.batch, trust=chosen.trust)
    )
    found = timed_all(pair, chosen.backends or tuple(RUNNERS), chosen.rounds, chosen.threads)
    threads = chosen.threads or torch.get_num_threads()
    conditions = {"machine": machine(), "batch": chosen.batch, "threads": threads, "rounds": chosen.rounds}
    data = {
        "network": chosen.network,
        **conditions,
        "instructions": instructions(),
        "macs_ratio": pair.macs_ratio,
        "backends": list(map(asdict, found)),
    }
    words = f"{machine()}, {threads} thread{'s' * (threads > 1)}, batch {chosen.batch}, {chosen.rounds} rounds in turns"
    cost = f"; MACs at {pair.macs_ratio:.3f} of before" if pair.macs_ratio is not None else ""
    missing = tuple(f"{one.backend}: not timed: {one.reason}" for one in found if one.reason)
    return Answer(data, (table(found), words + cost, *about(found), *missing))


def timed_all(pair: Pair, names: Iterable[str], rounds: int, threads: int | None) -> list[Timed]:
    """Prepare both networks on every backend, then time all of them in turns."""
    ready: dict[str, _Ready] = {}
    reasons: dict[str, str] = {}
    names = list(names)
    for name in each(names, "preparing", len(names)):
        try:
            ready[name] = _ready(_calibrated(name, pair), pair, threads or torch.get_num_threads())
        except BackendError as error:
            reasons[name] = str(error)
    runs = {f"{name} {side}": getattr(one, side) for name, one in ready.items() for side in ("before", "after")}
    turns = in_turns(runs, rounds) if runs else Turns({})
    return [
        _timed(name, ready[name], turns, ready) if name in ready else Timed(name, reason=reasons[name])
        for name in names
    ]


def _calibrated(name: str, pair: Pair) -> Runner:
    runner = backends.runner(name)
    return IN_INT8[name].calibrated(pair.inputs) if name in IN_INT8 else runner


def _ready(runner: Runner, pair: Pair, threads: int) -> _Ready:
    before, after = (runner.prepare(model, pair.example, threads) for model in (pair.dense, pair.small))
    return _Ready(runner.version(), before, after)


def _timed(name: str, ready: _Ready, turns: Turns, others: dict[str, _Ready]) -> Timed:
    float32 = IN_INT8[name].float32 if name in IN_INT8 else name
    dense = f"{float32} before"
    known = float32 in others
    return Timed(
        name,
        ready.version,
        turns.timing(f"{name} before").median_ms,
        turns.timing(f"{name} after").median_ms,
        turns.ratio(f"{name} after", f"{name} before"),
        turns.ratio(dense, f"{name} before") if known else None,
        turns.ratio(dense, f"{name} after") if known else None,
        ready.after.kernels(),
    )


def table(found: list[Timed]) -> Table:
    """Return one row a backend that ran."""
    made = Table("backend")
    for head in ("before, ms", "after, ms", "after / before", "95 % interval", "faster than dense float32"):
        made.add_column(head, justify="right")
    for one in found:
        if one.ratio is not None:
            low, middle, high = one.ratio
            times = (f"{one.before_ms:.3f}", f"{one.after_ms:.3f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
            made.add_row(one.backend, *times, _faster(one))
    return made


def _faster(one: Timed) -> str:
    """Return how many times faster than the dense network in float32 the result is: median and interval."""
    if one.speedup_after is None:
        return ""
    low, middle, high = one.speedup_after
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def about(found: list[Timed]) -> tuple[str, ...]:
    """Say which instructions the processor has, and which kernels each backend ran."""
    lines = [f"the processor has {', '.join(instructions()) or 'no instructions that it names'}"]
    for one in found:
        if one.ratio is not None:
            ran = ", ".join(f"{count} x {name}" for name, count in list(one.kernels.items())[:4])
            more = len(one.kernels) - 4
            words = ran + (f" and {more} kinds more" if more > 0 else "") if ran else "PyTorch's own kernels"
            lines.append(escape(f"{one.backend} ({one.version}) ran {words}"))
    return tuple(lines)
