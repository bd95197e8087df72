"""What a network costs, and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import wraps

from .errors import BudgetError, UnknownNameError


@dataclass(frozen=True)
class Cost:
    """What a network costs; arithmetic at batch 1.

    Attributes:
        macs: multiply-accumulates of convolutions, matrix products, attention and recurrent layers (not FLOPs).
        params: elements of all parameters, tied ones once.
        activations: peak of live activation elements during one forward pass.
        size_bytes: of the file that ``save`` writes; None where nobody asked.
        latency_ms: by measured tables, under their conditions; None where there are none.
    """

    macs: int
    params: int
    activations: int
    size_bytes: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the result may cost, several at once.

    Of ``macs``, ``params`` and ``activations``, a ``float`` in (0, 1] is a ratio of the dense network's cost and an
    ``int`` is absolute, at batch 1.

    Attributes:
        macs, params, activations: as in ``Cost``.
        size_bytes, size_ratio: of the file that ``save`` writes, metadata and all: bytes, and a ratio in (0, 1].
        latency_ms, latency_ratio: milliseconds, and a ratio in (0, 1]; the planner needs measured tables for them.

    Raises:
        BudgetError: nothing is given, or a value is out of range.
    """

    macs: float | int | None = None
    params: float | int | None = None
    activations: float | int | None = None
    size_bytes: int | None = None
    size_ratio: float | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if not given:
            raise BudgetError(f"an empty budget: give at least one of {', '.join(f.name for f in fields(self))}")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise BudgetError(f"budget {name}={value!r} is not a number")
            _CHECKS.get(name, _ratio_or_whole)(name, value)

    def limits(self, dense: Cost) -> Iterator[tuple[str, int | float]]:
        """Yield ``(measure, absolute limit)`` for every budgeted measure of a network that costs ``dense``.

        Raises:
            BudgetError: ``dense`` does not say what the budget asks for.
        """
        for measure, absolute, ratio in _MEASURES:
            whole, given = getattr(dense, measure), [getattr(self, name) for name in {absolute, ratio}]
            if all(value is None for value in given):
                continue
            if whole is None:
                raise BudgetError(_UNKNOWN[measure])
            if absolute == ratio:
                value = given[0]
                yield measure, int(value * whole) if isinstance(value, float) else value
                continue
            limit = min(getattr(self, absolute) or math.inf, (getattr(self, ratio) or math.inf) * whole)
            yield measure, limit if measure == "latency_ms" else int(limit)


def _speaking(made: Callable[..., None]) -> Callable[..., None]:
    """Say what to write where Python would only say which argument it does not know."""

    @wraps(made)
    def init(self: Budget, *given: object, **named: object) -> None:
        if given:
            raise BudgetError(f"a budget says of what: es.Budget(macs={given[0]!r}), or params, latency_ms, ...")
        known = [f.name for f in fields(self)]
        unknown = next((name for name in named if name not in known), None)
        if unknown == "max_drop":
            raise BudgetError(
                "max_drop is not what a network costs: give it to Settings(max_drop=...) or the step "
                "Prune(max_drop=...) of a recipe, for es.compress, which searches with data"
            )
        if unknown is not None:
            raise UnknownNameError("budget", unknown, known)
        made(self, **named)

    return init


Budget.__init__ = _speaking(Budget.__init__)


def _ratio_or_whole(name: str, value: float) -> None:
    if isinstance(value, float) and not 0.0 < value <= 1.0:
        raise BudgetError(f"budget {name}={value!r}: with a point it is a share in (0, 1], without one absolute")
    _at_least_one(name, value)


def _at_least_one(name: str, value: float) -> None:
    if isinstance(value, int) and value < 1:
        raise BudgetError(f"budget {name}={value!r}: an absolute budget is at least 1")


def _whole(name: str, value: float) -> None:
    if not isinstance(value, int):
        raise BudgetError(f"budget {name}={value!r}: write a whole number of bytes; a ratio is size_ratio")
    _at_least_one(name, value)


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise BudgetError(f"budget {name}={value!r}: milliseconds are above 0")


def _ratio(name: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise BudgetError(f"budget {name}={value!r}: a ratio is in (0, 1]")


_CHECKS = {"size_bytes": _whole, "size_ratio": _ratio, "latency_ms": _positive, "latency_ratio": _ratio}
# measure, and which fields of a budget limit it absolutely and as a ratio
_MEASURES = (
    ("macs", "macs", "macs"),
    ("params", "params", "params"),
    ("activations", "activations", "activations"),
    ("size_bytes", "size_bytes", "size_ratio"),
    ("latency_ms", "latency_ms", "latency_ratio"),
)
_UNKNOWN = {
    "size_bytes": "a budget in bytes needs the size of the file: plan with es.plan, which works it out",
    "latency_ms": "a budget in milliseconds needs measured tables: es.plan(..., tables=latency_tables(model, graph)), "
    "from espalier.measure",
}
