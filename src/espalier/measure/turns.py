"""Many networks timed in turns: each round runs all of them, so that the machine's moods hit them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .latency import Timing, median_interval, repeats_of, timed, timing_of


@dataclass(frozen=True)
class Turns:
    """What every network took in every round, in seconds."""

    seconds: Mapping[str, tuple[float, ...]]

    def timing(self, name: str) -> Timing:
        """Return the median of a network's times, and the distance between their quartiles."""
        return timing_of(list(self.seconds[name]))

    def ratio(self, over: str, under: str) -> tuple[float, float, float]:
        """Return ``over`` / ``under`` within a round: (low, median, high), the ends of the median's 95 % interval."""
        pairs = zip(self.seconds[over], self.seconds[under], strict=True)
        return median_interval([a / b for a, b in pairs])


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> Turns:
    """Time prepared networks by name; every round begins with another one, and every second runs backwards."""
    names = list(runs)
    repeats = {name: repeats_of(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        order = names[start:] + names[:start]
        for name in reversed(order) if turn % 2 else order:
            seconds[name].append(timed(runs[name], repeats[name]))
    return Turns({name: tuple(values) for name, values in seconds.items()})
