"""Groups of coupled channels and the places where they appear."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a tensor dimension does with a unit."""

    PRODUCER = "producer"  # this row of weights computes the unit
    READER = "reader"  # this column of weights reads the unit
    SCALE = "scale"  # multiplies the unit (batch-norm weight, layer scale)
    SHIFT = "shift"  # adds to the unit (bias, running mean, position embedding)


@dataclass(frozen=True, eq=False)
class Slot:
    """One place a group appears.

    Attributes:
        tensor: dotted name of a parameter or buffer (the first of its names when tied).
        dim: the dimension of that tensor.
        positions: integer array of shape (units, k): where in the dimension each unit sits.
        role: what the dimension does with the unit.
    """

    tensor: str
    dim: int
    positions: Any = field(repr=False)
    role: Role


@dataclass(frozen=True, eq=False)
class Group:
    """Axes all over the network whose positions live and die together.

    Attributes:
        name: stable name, ``tensor:dim`` of its first producer, with ``.column`` where a dimension is a product.
        size: number of units.
        slots: every place it appears.
        statistics: a statistic (layer norm, softmax, mean) is taken over it, so cutting changes the function
            that the surviving units compute; the cut is legal and is proved against statistics over kept units.
    """

    name: str
    size: int
    slots: tuple[Slot, ...]
    statistics: bool = False


@dataclass(frozen=True)
class Frozen:
    """A tensor dimension (or part of one) that must not change.

    Attributes:
        tensor, dim: where.
        positions: how many positions of the dimension are frozen.
        reason: why, in words.
        source: ``file:line`` in the model's own code, or "".
    """

    tensor: str
    dim: int
    positions: int
    reason: str
    source: str = ""


@dataclass(frozen=True)
class Tie:
    """An equation between group sizes that the model's Python imposes.

        size(derived) = coefficient * product of size(g) ** power

    Attributes:
        derived: the group whose size follows.
        powers: ``{group: power}`` of the groups that determine it.
        coefficient: numerator and denominator.
        reason: the Python expression, in words.
    """

    derived: str
    powers: dict[str, int] = field(hash=False)
    coefficient: tuple[int, int] = (1, 1)
    reason: str = ""

    def value(self, sizes: dict[str, int]) -> float:
        """Return the derived size under ``sizes``; fractional when the tie cannot be met."""
        result = self.coefficient[0] / self.coefficient[1]
        for name, power in self.powers.items():
            result *= float(sizes[name]) ** power
        return result
