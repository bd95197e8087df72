"""Refusal: why a budget cannot be reached, and what can."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..core import BudgetError, Cost

if TYPE_CHECKING:
    from ..graph import Graph
    from .costs import Costs

_SHOWN = 5  # frozen tensors named in the message


def refusal(
    costs: Costs, limits: Mapping[str, float], smallest: Cost, freest: Cost, given: Sequence[str] = ()
) -> BudgetError:
    """Return the error for a budget below the smallest plan.

    Args:
        costs: of the network.
        limits: the absolute limits.
        smallest: the cost of the smallest plan under the user's patterns, floors and multiples.
        freest: the cost of the smallest plan without them.
        given: the names of the options that make the difference; only those that the user gave.
    """
    dense = costs.dense()
    inherent = False  # the limit is below what any options reach
    lines = [] if costs.graph.groups else ["This network has no prunable group: nothing in it can be cut."]
    for measure, limit in limits.items():
        least, whole, free = (getattr(cost, measure) for cost in (smallest, dense, freest))
        if least > limit:
            inherent |= free > limit
            lines.append(
                f"the budget of {number(limit)} {measure} ({limit / whole:.3g} of the network) cannot be reached: "
                f"the smallest plan has {number(least)} ({_up(least / whole)})."
            )
            if free < least:
                reach = "would reach it" if free <= limit else "would still be above it"
                lines.append(
                    f"Without your {listed(given)} the smallest is {number(free)} ({_up(free / whole)}), which {reach}."
                )
    frozen = frozen_tensors(costs.graph) if inherent else []
    if frozen:
        lines.append("Largest frozen tensors:")
        lines += [f"  {name} ({size:,} elements): {reason}" for size, name, reason in frozen[:_SHOWN]]
    elif inherent:
        lines.append("No tensor is frozen: this is one step a group.")
    return BudgetError("\n".join(lines))


def frozen_tensors(graph: Graph) -> list[tuple[int, str, str]]:
    """Return (frozen elements, tensor, reason), the largest first: elements on the frozen part of a dimension."""
    largest: dict[str, tuple[int, str, str]] = {}
    for frozen in graph.frozen:
        shape = graph.shapes.get(frozen.tensor, ())
        if frozen.dim < len(shape) and shape[frozen.dim]:
            size = math.prod(shape) * frozen.positions // shape[frozen.dim]
            where = f" at {frozen.source}" if frozen.source else ""
            row = size, frozen.tensor, f"dim {frozen.dim}: {frozen.reason}{where}"
            largest[frozen.tensor] = max(row, largest.get(frozen.tensor, row))
    return sorted(largest.values(), key=lambda row: (-row[0], row[1]))


def number(value: float) -> str:
    """Return a count in full, and milliseconds with three digits behind the point.

    >>> number(1234567), number(12.3456)
    ('1,234,567', '12.346')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def listed(names: Sequence[str]) -> str:
    """Return names as people write them.

    >>> listed(["keep", "floor", "round_to"])
    'keep, floor and round_to'
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _up(ratio: float) -> str:
    """Return a ratio rounded up, so that a budget of what is printed can be reached."""
    return f"{math.ceil(ratio * 10_000) / 10_000:.4f}"
