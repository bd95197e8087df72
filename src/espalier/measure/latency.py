"""Latency of two models, measured so that the machine's moods hit both alike.

warm-up, then rounds of (before, after), (after, before), ...; median and quartiles of each,
and the median of the ratios within a round, with the 95 % interval of that median (order statistics).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from .. import backends

_WARM_UP = 3
_TARGET_SECONDS = 0.01  # a timing shorter than this measures the clock and the scheduler


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one forward pass: median and distance between the quartiles."""

    median_ms: float
    spread_ms: float


@dataclass(frozen=True)
class Race:
    """Two models timed in turns.

    Attributes:
        before, after: timings.
        ratio: after / before as (low, median, high), the 95 % interval of the median over rounds.
        rounds: how many.
        threads: of the backend on the CPU.
        backend: what ran both.
    """

    before: Timing
    after: Timing
    ratio: tuple[float, float, float]
    rounds: int
    threads: int
    backend: str = "eager"

    @property
    def conditions(self) -> str:
        """How it was measured, in words."""
        plural = "s" if self.threads > 1 else ""
        rounds = f"medians of {self.rounds} interleaved rounds and of their ratios"
        return f"{self.backend}, {self.threads} thread{plural}, {rounds}"


def race(
    before: nn.Module,
    after: nn.Module,
    example: Any,
    *,
    rounds: int = 15,
    backend: str = "eager",
    threads: int | None = None,
) -> Race:
    """Time forward passes of two models on ``example``, in eval mode and without gradients.

    Args:
        before, after: the models; they are untouched.
        example: a tensor, a tuple of arguments, or a mapping of keywords.
        rounds: timings of each model.
        backend: what runs them.
        threads: of the backend; PyTorch's own number when None.

    Raises:
        BackendError: the backend is not there, or cannot run a model.
    """
    runner, count = backends.runner(backend), threads or torch.get_num_threads()
    one, other = (runner.prepare(model, example, count) for model in (before, after))
    found = race_runs(one, other, rounds)
    return replace(found, threads=count, backend=backend)


def race_runs(
    before: Callable[[], object], after: Callable[[], object], rounds: int, *, within: float = 0.0, most: int = 1
) -> Race:
    """Time two prepared networks in turns.

    Args:
        before, after: run a network once.
        rounds: of each.
        within: as many rounds again while half of the ratio's 95 % interval is more than this share of it,
        most: but not more than so many times.
    """
    calls = (before, after)
    repeats = [repeats_of(call) for call in calls]
    seconds: tuple[list[float], list[float]] = ([], [])
    ratio = (0.0, 1.0, math.inf)
    while len(seconds[0]) < most * rounds and (ratio[2] - ratio[0]) / 2 > within * ratio[1]:
        for turn in range(rounds):
            for who in (0, 1) if turn % 2 == 0 else (1, 0):
                seconds[who].append(timed(calls[who], repeats[who]))
        ratio = median_interval([a / b for b, a in zip(*seconds, strict=True)])
    return Race(timing_of(seconds[0]), timing_of(seconds[1]), ratio, len(seconds[0]), 1)


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Return (low, median, high): the median and its distribution-free 95 % interval.

    low, high = the order statistics of ranks n/2 -+ 1.96 sqrt(n)/2
    """
    ordered = sorted(values)
    half = 1.96 * math.sqrt(len(ordered)) / 2
    low = max(0, math.floor(len(ordered) / 2 - half))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half) - 1)
    return ordered[low], statistics.median(ordered), ordered[high]


def timing_of(seconds: list[float]) -> Timing:
    """Return the median of some times and their spread."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return Timing(1e3 * statistics.median(seconds), 1e3 * (quartiles[2] - quartiles[0]))


def repeats_of(call: Callable[[], object]) -> int:
    """Warm up, and return how many passes one timing needs."""
    for _ in range(_WARM_UP):
        call()
    return max(1, math.ceil(_TARGET_SECONDS / max(timed(call, 1), 1e-7)))


def timed(call: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one pass."""
    _wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait()
    return (time.perf_counter() - start) / repeats


def _wait() -> None:
    """Wait for an accelerator that works behind Python's back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
