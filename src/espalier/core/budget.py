"""What a network costs, and what it may cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from .errors import BudgetError


@dataclass(frozen=True)
class Cost:
    """Arithmetic cost at batch 1.

    Attributes:
        macs: multiply-accumulates of convolutions, matrix products, attention and recurrent layers (not FLOPs).
        params: elements of all parameters, tied ones once.
        activations: peak of live activation elements during one forward pass.
    """

    macs: int
    params: int
    activations: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the result may cost, several at once.

    A ``float`` in (0, 1] is a ratio of the dense network's cost, an ``int`` is absolute. All at batch 1.

    Raises:
        BudgetError: nothing is given, or a value is out of range.
    """

    macs: float | int | None = None
    params: float | int | None = None
    activations: float | int | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if not given:
            raise BudgetError("an empty budget: give at least one of macs, params, activations")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise BudgetError(f"budget {name}={value!r} is not a number")
            if isinstance(value, float) and not 0.0 < value <= 1.0:
                raise BudgetError(
                    f"budget {name}={value!r}: a float is a ratio in (0, 1]; write an int for an absolute {name}"
                )
            if isinstance(value, int) and value < 1:
                raise BudgetError(f"budget {name}={value!r}: an absolute budget is at least 1")

    def limits(self, dense: Cost) -> Iterator[tuple[str, int]]:
        """Yield ``(measure, absolute limit)`` for every budgeted measure of a network that costs ``dense``."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                whole = getattr(dense, field.name)
                yield field.name, int(value * whole) if isinstance(value, float) else value
