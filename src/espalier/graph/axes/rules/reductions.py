"""Reductions: the reduced dimensions go; all but sums and norms are statistics over them."""

from __future__ import annotations

from collections.abc import Iterable

from ..inference import Call, Dims
from ..units import constant

_MEAN, _SUM = 1, 2  # PyTorch's numbers for the reductions of losses


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


def norm(call: Call) -> list[Dims]:
    """Vector norms; one of a negative order looks for the smallest entry, which a removed zero would be."""
    order = call["p"] if call["ord"] is None else call["ord"]
    return ordinal(call) if order is not None and float(order) < 0 else total(call)


def statistic(call: Call) -> list[Dims]:
    """Means, variances, extrema: their value over the kept positions differs."""
    x = call.dims("self")
    gone = _reduced(call, len(x))
    for d in gone:
        call.statistic(x[d])
    return _without(call, x, gone)


def extremum(call: Call) -> list[Dims]:
    """Values and indices of the largest or smallest: a statistic, unless somebody asks where it is."""
    asked = len(call.op.outs) > 1 and call.is_read(1)
    return ordinal(call) if asked else statistic(call)


def loss(call: Call) -> list[Dims]:
    """A distance between two tensors of one shape, entry by entry, or its sum or mean over everything."""
    x, target = call.dims("self"), call.dims("target")
    weight = call.dims("weight")
    for other in (target, weight):
        for own, dim in zip(x[::-1], other[::-1], strict=False):
            if len(own) == len(dim):
                call.unify(own, dim)
            else:
                call.freeze(own, "it is broadcast in a loss")
                call.freeze(dim, "it is broadcast in a loss")
    if call["reduction"] == _MEAN:
        for dim in x:
            call.statistic(dim)
    return [[]] if call["reduction"] in (_MEAN, _SUM) else [x]


def ordinal(call: Call) -> list[Dims]:
    """Index of the extremum, medians, products, any, all: the reduced positions must all stay."""
    x = call.dims("self")
    gone = _reduced(call, len(x)) if x else []
    for d in gone:
        call.freeze(x[d], "a reduction needs every position of it")
    return _without(call, x, gone)


RULES = {
    "sum": total,
    "nansum": total,
    "count_nonzero": total,
    "linalg_vector_norm": norm,
    "norm": norm,
    "mean": statistic,
    "amax": statistic,
    "amin": statistic,
    "aminmax": statistic,
    "max": extremum,
    "min": extremum,
    "var": statistic,
    "std": statistic,
    "var_mean": statistic,
    "std_mean": statistic,
    "logsumexp": statistic,
    "argmax": ordinal,
    "argmin": ordinal,
    "median": ordinal,
    "nanmedian": ordinal,
    "kthvalue": ordinal,
    "mode": ordinal,
    "prod": ordinal,
    "any": ordinal,
    "all": ordinal,
    "mse_loss": loss,
    "smooth_l1_loss": loss,
    "huber_loss": loss,
    "soft_margin_loss": loss,
    "binary_cross_entropy": loss,
}
