"""Reductions: the reduced dimensions go; all but sums and norms are statistics over them."""

from __future__ import annotations

from collections.abc import Iterable

from ..inference import Call, Dims
from ..units import constant


def _reduced(call: Call, rank: int) -> list[int]:
    given = call["dim"]
    if given is None or (isinstance(given, list | tuple) and not given):
        return list(range(rank))
    return [int(d) % max(rank, 1) for d in (given if isinstance(given, Iterable) else [given])]


def _without(call: Call, x: Dims, gone: list[int]) -> list[Dims]:
    keep = len(call.out_shape()) == len(x)
    out = [constant(1) if d in gone else dim for d, dim in enumerate(x) if keep or d not in gone]
    return [list(out) for _ in call.op.outs]


def total(call: Call) -> list[Dims]:
    """Sums and vector norms: a removed position contributed zero."""
    x = call.dims("self")
    return _without(call, x, _reduced(call, len(x)))


def statistic(call: Call) -> list[Dims]:
    """Means, variances, extrema: their value over the kept positions differs."""
    x = call.dims("self")
    gone = _reduced(call, len(x))
    for d in gone:
        call.statistic(x[d])
    return _without(call, x, gone)


def ordinal(call: Call) -> list[Dims]:
    """Index of the extremum, products, any, all: the reduced positions must all stay."""
    x = call.dims("self")
    gone = _reduced(call, len(x)) if x else []
    for d in gone:
        call.freeze(x[d], "a reduction needs every position of it")
    return _without(call, x, gone)


RULES = {
    "sum": total,
    "nansum": total,
    "linalg_vector_norm": total,
    "norm": total,
    "mean": statistic,
    "amax": statistic,
    "amin": statistic,
    "var": statistic,
    "std": statistic,
    "var_mean": statistic,
    "std_mean": statistic,
    "logsumexp": statistic,
    "argmax": ordinal,
    "argmin": ordinal,
    "max": ordinal,
    "min": ordinal,
    "median": ordinal,
    "mode": ordinal,
    "prod": ordinal,
    "any": ordinal,
    "all": ordinal,
}
