"""Numbers as people read them: three digits, a unit, a real minus sign."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

_Z = 1.96  # the normal distribution's 97.5 % quantile


def show_count(value: float) -> str:
    """Return a count in three digits: 1.23 M."""
    for power, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= power:
            return f"{value / power:.3g}{suffix}" if value < 999.5 * power else f"{value / power:.0f}{suffix}"
    return f"{value:.3g}"


def show_bytes(value: float) -> str:
    """Return bytes in three digits: 1.23 MB."""
    text = show_count(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def show_ms(value: float) -> str:
    """Return milliseconds in three digits; in microseconds where they are few."""
    if value >= 999.5:
        return f"{value:,.0f} ms"
    return f"{value:.3g} ms" if value >= 0.1 or not value else f"{1000 * value:.3g} \N{MICRO SIGN}s"


def one_unit(largest_ms: float) -> tuple[str, Callable[[float], str]]:
    """Return the unit that suits a table of times up to ``largest_ms``, and what shows milliseconds in it."""
    if largest_ms >= 1.0:
        return "ms", lambda ms: f"{ms:,.2f}"
    return "\N{MICRO SIGN}s", lambda ms: f"{1000 * ms:,.1f}"


def tied(text: str) -> str:
    """Return text whose numbers stay on a line with their units.

    >>> tied("at 98.9 % in 3 ms").split(" ")
    ['at', '98.9\\xa0%', 'in', '3\\xa0ms']
    """
    return re.sub(r"(?<=\d) (?=(%|[kMGT]?B|[kMGT]|ms|\N{MICRO SIGN}s)(\W|$))", "\N{NO-BREAK SPACE}", text)


def show_points(difference: float) -> str:
    """Return a difference of two ratios in points: +0.30 points."""
    text = f"{100 * difference:+.2f} points"
    return f"\N{PLUS-MINUS SIGN}{text[1:]}" if text[1:] == "0.00 points" else text.replace("-", "\N{MINUS SIGN}")


def show_times(ratio: float) -> str:
    """Return before / after as a factor: 3.33\N{MULTIPLICATION SIGN}."""
    return f"{ratio:.3g}\N{MULTIPLICATION SIGN}" if ratio < 999.5 else f"{ratio:,.0f}\N{MULTIPLICATION SIGN}"


def show_time(stamp: str) -> str:
    """Return an ISO 8601 time as ``2026-01-31 12:34:56 UTC+01:00``; anything else as it is."""
    day, mark, rest = stamp.partition("T")
    if not mark:
        return stamp
    clock, zone = rest[:8], rest[8:]
    return f"{day} {clock} UTC{'' if zone in ('+00:00', 'Z', '') else zone}"


def show_seconds(seconds: float) -> str:
    """Return a length of time in its two largest units: 1 h 02 min, 3 min 20 s, 12 s."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{seconds:.3g} s"


def proportion_interval(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion that was seen in ``count`` independent examples.

        (p + z^2/2n -+ z sqrt(p(1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Source: E. B. Wilson, Probable inference, JASA 22, 1927.
    """
    square = _Z**2 / count
    middle = share + square / 2
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, (middle - half) / (1 + square)), min(1.0, (middle + half) / (1 + square))
