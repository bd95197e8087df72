"""Chance, taken out: while a proof compares, random operators give numbers that do not depend on where they stand.

    dropout, bernoulli(p)     their mean: dropout becomes the identity
    rand, randn, exponential  one number everywhere, low or high by ``share``
    empty, new_empty          the same: memory that nothing has written yet holds what chance left there
    Python's and numpy's      the same sequence in every run

A cut network draws fewer numbers than the whole one, so that numbers of one seed would stand at other places. Code that
compares a random number with a threshold takes one branch at a high share and the other at a low one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .looks import decides
from .record import Op, Record, bind

HIGH, LOW = 0.95, 0.05
_DROPS = {"native_dropout": torch.bool, "_fused_dropout": torch.uint8}  # (x, mask of this dtype)
_AT_REST = {"dropout_p": 0.0, "dropout": 0.0, "training": False}  # attention, recurrent kernels, rrelu


@contextmanager
def same_chance() -> Iterator[None]:
    """Start Python's and numpy's random numbers anew, and put them back."""
    python, array = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(0)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)


class Certain(TorchDispatchMode):
    """Replaces what random operators give, while it is active."""

    def __init__(self, share: float = HIGH) -> None:
        super().__init__()
        self.share = share

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not _draws(func):
            return func(*args, **kwargs)
        name = func._opname.removesuffix("_")
        if name in _DROPS:
            return args[0].clone(), torch.ones_like(args[0], dtype=_DROPS[name])
        if name not in _VALUES:
            return func(*_at_rest(func, args), **{k: _AT_REST.get(k, v) for k, v in kwargs.items()})
        return filled(func, args, kwargs, func(*args, **kwargs), self.share)


def filled(func: Any, args: tuple, kwargs: dict, result: Any, share: float = HIGH) -> Any:
    """Return what an operator gave; random numbers made certain."""
    if not _is_filled(func) or result.is_meta:
        return result
    value = _VALUES[func._opname.removesuffix("_")](bind(Op(func, args, kwargs, (), "", "", "")), share)
    if func._opname in _UNWRITTEN:
        return result.fill_(value if result.is_floating_point() else 1) if result.layout == torch.strided else result
    value = torch.as_tensor(value, dtype=torch.float64, device=result.device)
    return result.copy_(value if result.is_floating_point() else value.ceil())


def draws(record: Record) -> bool:
    """Whether an operator of a record gives what chance decides (dropout, stochastic depth, unwritten memory)."""
    return any(True for _ in _random(record))


def is_settled(record: Record) -> bool:
    """Whether ``Certain`` settles all that is random in a record."""
    return all(
        name in _VALUES or name in _DROPS or not _AT_REST.keys().isdisjoint(bind(op)) for name, op in _random(record)
    )


def shares(record: Record) -> tuple[float, ...]:
    """Return the shares to compare a record at: both where a random number may meet a threshold, not in Python."""
    spread = any(name in _SPREAD for name, _ in _random(record))
    return (HIGH, LOW) if spread and not decides(record) else (HIGH,)


@cache
def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags or _is_filled(func)


@cache
def _is_filled(func: Any) -> bool:
    return func._opname.removesuffix("_") in _VALUES


def _random(record: Record) -> Iterator[tuple[str, Op]]:
    for op in record.ops:
        if not isinstance(op.func, str) and _draws(op.func):
            yield op.func._opname.removesuffix("_"), op


def _at_rest(func: Any, args: tuple) -> tuple:
    """Return arguments with which a kernel draws nothing."""
    names = [argument.name for argument in func._schema.arguments]
    return tuple(_AT_REST.get(name, value) for name, value in zip(names, args, strict=False))


def _picked(bound: dict, share: float) -> Tensor:
    """The likeliest, in order, again and again if more are asked for."""
    order = bound["self"].argsort(dim=-1, descending=True, stable=True)
    return order[..., torch.arange(int(bound["num_samples"]), device=order.device) % order.shape[-1]]


def _uniform(bound: dict, share: float) -> Any:
    low, high = bound.get("from") or 0.0, bound.get("to")
    return low + ((1.0 if high is None else high) - low) * share


def _whole(bound: dict, share: float) -> Any:
    low, high = bound.get("low") or 0, bound["high"]
    return torch.as_tensor(low + (high - 1 - low) * share, dtype=torch.float64).floor()


def _normal(bound: dict, share: float) -> Any:
    mean, std = bound.get("mean", 0.0), bound.get("std", 1.0)
    return mean + std * (2 * share - 1)


_VALUES: dict[str, Callable[[dict, float], Any]] = {
    "bernoulli": lambda bound, _: bound["self"] if bound.get("p") is None else bound["p"],
    "binomial": lambda bound, _: bound["count"] * bound["prob"],
    **dict.fromkeys(("poisson", "_standard_gamma"), lambda bound, _: bound["self"]),
    "_sample_dirichlet": lambda bound, _: bound["self"] / bound["self"].sum(-1, keepdim=True),
    "multinomial": _picked,
    "randperm": lambda bound, _: torch.arange(int(bound["n"])),
    **dict.fromkeys(("uniform", "rand", "rand_like"), _uniform),
    **dict.fromkeys(("normal", "randn", "randn_like"), _normal),
    **dict.fromkeys(("randint", "randint_like"), _whole),
    **dict.fromkeys(("exponential", "cauchy", "log_normal"), lambda _, share: share),
    **dict.fromkeys(("geometric", "random"), lambda _, __: 1.0),
}
_UNWRITTEN = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
_VALUES.update(dict.fromkeys(_UNWRITTEN, lambda _, share: share))
_SPREAD = {"uniform", "rand", "rand_like", "normal", "randn", "randn_like", "exponential", "randint"}
