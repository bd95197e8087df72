"""Numbers and failures in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from .run import Outcome
from .statistics import Interval

MEASURES = {"macs": "MACs", "params": "parameters", "activations": "activations", "size_ratio": "bytes"}


def told(outcome: Outcome) -> Iterator[str]:
    """Yield what failed, the commonest reason first."""
    for reason, count in Counter(outcome.failed.values()).most_common():
        first = next(str(job) for job in outcome.jobs if outcome.failed.get(job.key) == reason)
        more = f" and {count - 1} more" if count > 1 else ""
        yield f"failed: {first}{more}: {reason}"


def points(value: float, digits: int = 2) -> str:
    """Return a share in points."""
    return "\N{EN DASH}" if np.isnan(value) else f"{100 * value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def interval(one: Interval, digits: int = 2) -> str:
    """Return an estimate with its interval, in points."""
    if np.isnan(one.low):
        return points(one.value, digits)
    return f"{points(one.value, digits)} [{points(one.low, digits)}, {points(one.high, digits)}]"
