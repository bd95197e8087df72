"""``espalier bench``: both networks in turns on every backend, and which backends are not there and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from rich.markup import escape
from rich.table import Table

from .. import backends
from ..backends.protocol import BackendError
from ..backends.registry import BACKENDS
from ..core import UnknownNameError
from ..measure import race
from ..measure.machine import machine
from ..recipes.folders.located import located, names_model
from ..recipes.progress import each
from .answer import Answer
from .options import Bench
from .pair import Pair, from_name, from_run


@dataclass(frozen=True)
class Timed:
    """What one backend took; ``reason`` says why where it did not run.

    Attributes:
        before_ms, after_ms: medians.
        ratio: after / before within a round: median with the ends of its 95 % interval, (low, median, high).
    """

    backend: str
    version: str = ""
    before_ms: float | None = None
    after_ms: float | None = None
    ratio: tuple[float, float, float] | None = None
    reason: str = ""


def bench(chosen: Bench) -> Answer:
    """Time both networks and print a table."""
    for name in chosen.backends:
        if name not in BACKENDS:
            raise UnknownNameError("backend", name, BACKENDS)
    pair = (
        from_name(chosen.network, chosen.batch, chosen.macs)
        if names_model(chosen.network)
        else from_run(located(chosen.network), chosen.batch, trust=chosen.trust)
    )
    names = chosen.backends or tuple(BACKENDS)
    found = [timed(name, pair, chosen.rounds, chosen.threads) for name in each(names, "timing", len(names))]
    threads = chosen.threads or torch.get_num_threads()
    conditions = {"machine": machine(), "batch": chosen.batch, "threads": threads, "rounds": chosen.rounds}
    data = {
        "network": chosen.network,
        **conditions,
        "macs_ratio": pair.macs_ratio,
        "backends": list(map(asdict, found)),
    }
    words = f"{machine()}, {threads} thread{'s' * (threads > 1)}, batch {chosen.batch}, {chosen.rounds} rounds in turns"
    cost = f"; MACs at {pair.macs_ratio:.3f} of before" if pair.macs_ratio is not None else ""
    missing = tuple(f"{one.backend}: not timed: {one.reason}" for one in found if one.reason)
    return Answer(data, (table(found), words + cost, *missing))


def timed(name: str, pair: Pair, rounds: int, threads: int | None) -> Timed:
    """Time both networks on one backend; where it is not there or cannot run them, say why."""
    try:
        version = backends.named(name).version()
        result = race(pair.dense, pair.small, pair.example, rounds=rounds, backend=name, threads=threads)
    except BackendError as error:
        return Timed(name, reason=str(error))
    return Timed(name, version, result.before.median_ms, result.after.median_ms, result.ratio)


def table(found: list[Timed]) -> Table:
    """Return one row a backend that ran."""
    made = Table("backend")
    for head in ("before, ms", "after, ms", "ratio", "95 % interval"):
        made.add_column(head, justify="right")
    made.add_column("version")
    for one in found:
        if one.ratio is not None:
            low, middle, high = one.ratio
            times = (f"{one.before_ms:.3f}", f"{one.after_ms:.3f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
            made.add_row(one.backend, *times, escape(one.version))
    return made
