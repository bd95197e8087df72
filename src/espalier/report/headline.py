"""What a reader sees first: one sentence, the headline numbers, and whether the run came to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from ..core.run import Measures, Run
from .numbers import proportion_interval, show_bytes, show_count, show_ms, show_points, show_times


@dataclass(frozen=True)
class Card:
    """One headline number.

    Attributes:
        label: what it is.
        before, after: its values, with units.
        change: in words.
        share: after / before, for the bar; None draws none.
        interval: of that share, for the whisker on the bar.
        gloss: what the word means, and how it was measured.
    """

    label: str
    before: str
    after: str
    change: str
    share: float | None
    interval: tuple[float, float] | None
    gloss: str


@dataclass(frozen=True)
class Banner:
    """What stands above everything where a run did not end well: what happened, why, and what to do."""

    title: str
    reason: str
    command: str
    hint: str


def sentence(run: Run) -> str:
    """Return the result in one sentence, or "" where nothing was measured."""
    gains = [
        f"{show_times(before / after)} fewer {words}"
        for name, words in (("macs", "MACs"), ("params", "parameters"))
        if (before := getattr(run.before, name)) and (after := getattr(run.after, name)) and after < before
    ]
    if run.densities and (kept := sum(one.kept for one in run.densities)):
        gains.append(f"{show_times(sum(one.weights for one in run.densities) / kept)} fewer weights in masked layers")
    if run.latency_ratio and run.latency_ratio[2] < 1:  # only where the whole interval is on the faster side
        gains.append(f"{show_times(1 / run.latency_ratio[1])} faster")
    words = ", ".join(gains[:-1]) + (" and " if len(gains) > 1 else "") + gains[-1] if gains else ""
    before, after = run.before.accuracy, run.after.accuracy
    if before is None or after is None:
        return words
    place = "the same as before" if before == after else f"{show_points(after - before)} against before"
    score = f"{100 * after:.2f} % test {run.metric}, {place}"
    return f"{words}, at {score}" if words else score


def cards(run: Run) -> Iterator[Card]:
    """Yield the headline numbers that were measured: the metric first, then costs."""
    yield from _score(run)
    for name, label, show, gloss in _COSTS:
        old, new = getattr(run.before, name), getattr(run.after, name)
        if not old or new is None:
            continue
        if name == "latency_ms" and run.latency_ratio:
            yield _latency(run, label, old, new)
        else:
            yield Card(label, show(old), show(new), f"{100 * new / old:.1f} % of before", new / old, None, gloss)


def banner(run: Run, folder: str) -> Banner | None:
    """Return what to say about a run that has not finished; None for one that has."""
    if run.status == "finished":
        return None
    command = f"espalier resume {folder or run.name}"
    if run.status == "failed":
        reason = run.notes[-1] if run.notes else ""
        return Banner("This run failed", reason, command, "Mend the cause first; then it goes on from its checkpoint:")
    if run.status == "interrupted":
        return Banner("This run was interrupted", "", command, "It goes on from its last checkpoint, to the same end:")
    return Banner("This run has not ended yet", "", command, "If its process is gone, it goes on with:")


def _score(run: Run) -> Iterator[Card]:
    before, after = run.before.accuracy, run.after.accuracy
    if before is None or after is None:
        return
    gloss = "on the test split, which was read once"
    if run.metric == "accuracy" and run.readings:
        count = run.readings[-1].examples
        low, high = proportion_interval(after, count)
        gloss += f"; with {count:,} examples the 95 % interval is {100 * low:.1f} to {100 * high:.1f} %"
        gloss += f", and the difference is {round(count * (after - before)):+,} of them"
    dense = sum(1 for _ in takewhile(lambda epoch: epoch.stage == "training", run.history))
    if more := len(run.history) - dense:  # trials of a search too, of which not all became part of the result
        gloss += f"; after the network before, the run trained for {more} {'epoch' if more == 1 else 'epochs'} in all"
    change = show_points(after - before)
    yield Card(f"Test {run.metric}", f"{100 * before:.2f} %", f"{100 * after:.2f} %", change, None, None, gloss)


def _latency(run: Run, label: str, old: float, new: float) -> Card:
    assert run.latency_ratio is not None
    low, middle, high = run.latency_ratio
    conditions = run.latencies[-1].conditions if run.latencies else run.environment.get("latency", "")
    change = f"{100 * middle:.0f} % of before (95 % interval {100 * low:.0f} to {100 * high:.0f})"
    gloss = "one forward pass" + (f": {conditions}" if conditions else "")
    return Card(label, show_ms(old), show_ms(new), change, middle, (low, high), gloss)


_COSTS: tuple[tuple[str, str, Callable[[float], str], str], ...] = (
    ("macs", "MACs", show_count, "multiply-accumulates for one input: the arithmetic"),
    ("params", "Parameters", show_count, "numbers that were learned"),
    ("size_bytes", "Size", show_bytes, "of parameters and buffers, uncompressed"),
    ("activations", "Peak activations", show_count, "numbers held at once while it computes one input"),
    ("latency_ms", "Latency", show_ms, "one forward pass"),
)

assert {name for name, *_ in _COSTS} <= set(Measures.__dataclass_fields__)  # else a card would stay empty
