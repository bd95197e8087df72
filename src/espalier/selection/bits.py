"""Bits a layer under a budget: of what each choice costs and what it loses, the cheapest loss that fits.

    minimise  sum over layers of loss[layer, choice]        subject to  sum of cost[layer, choice] <= limit

one choice a layer: the multiple-choice knapsack, solved to its optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from ..core import BudgetError


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a layer may be.

    Attributes:
        bits: what it is called.
        cost: what it takes, such as bytes.
        loss: what it loses, such as a rise of the loss; below 0 where it gains.
    """

    bits: int
    cost: float
    loss: float


def allocate(choices: Mapping[str, list[Choice]], limit: float) -> dict[str, Choice]:
    """Return one choice a layer.

    >>> one = [Choice(bits=1, cost=10, loss=0.5), Choice(bits=4, cost=40, loss=0.0)]
    >>> two = [Choice(bits=1, cost=10, loss=0.1), Choice(bits=4, cost=40, loss=0.0)]
    >>> {name: choice.bits for name, choice in allocate({"a": one, "b": two}, 60).items()}
    {'a': 4, 'b': 1}

    Args:
        choices: of each layer, one at least.
        limit: of the sum of costs.

    Raises:
        BudgetError: the cheapest choices cost more than the limit.
    """
    flat = [(name, choice) for name, own in choices.items() for choice in own]
    least = sum(min(choice.cost for choice in own) for own in choices.values())
    if least > limit:
        raise BudgetError(f"the fewest bits cost {least:,.0f} bytes, more than the {limit:,.0f} that are left for them")
    if not flat:
        return {}
    names = list(choices)
    of_layer = np.zeros((len(names), len(flat)))
    of_layer[[names.index(name) for name, _ in flat], range(len(flat))] = 1
    costs = np.array([choice.cost for _, choice in flat])
    losses = np.array([choice.loss for _, choice in flat])
    scale = max(float(np.abs(losses).max()), 1e-12)
    found = milp(
        losses / scale + costs / max(costs.sum(), 1) * 1e-6,  # of equal losses, the cheaper
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(of_layer, 1, 1), LinearConstraint(costs[None] / max(limit, 1), -np.inf, 1)],
    )
    if found.x is None:
        raise BudgetError(f"no choice of bits within {limit:,.0f} bytes was found: {found.message}")
    return {name: choice for (name, choice), taken in zip(flat, found.x, strict=True) if taken > 0.5}
