"""Search: from levels to counts, down to the budget and back up to just below it.

descend   bisection on how many units go, lowest level first: about log2(units) costs
climb     adds units back, highest level first, one group's step at a time, while they fit
exchange  where steps are coarse: more of one group, paid by others
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core import Cost
from .lattice import Lattice

NEAR = 0.99  # a plan lands within 1 % below its budget
_CLIMB_COSTS = 400  # cost evaluations that the climb may spend
_INSISTED_GROUPS = 8  # for which the exchange insists on more
_INSISTED_STEPS = 3  # more that it insists on
_SEARCHED_GROUPS = 2000  # in all searches of an exchange: networks of many groups have fine steps and need few


@dataclass(frozen=True)
class Target:
    """Absolute limits, a measure each."""

    limits: Mapping[str, float]

    def fits(self, cost: Cost) -> bool:
        """Return whether no limit is exceeded."""
        return all(getattr(cost, measure) <= limit for measure, limit in self.limits.items())

    def near(self, cost: Cost) -> bool:
        """Return whether the cost is within 1 % of a limit: that one binds."""
        return self.fullness(cost) >= NEAR

    def fullness(self, cost: Cost) -> float:
        """Return how much of the tightest limit a cost uses."""
        return max(getattr(cost, measure) / max(limit, 1e-9) for measure, limit in self.limits.items())


def search(lattice: Lattice, levels: Mapping[str, np.ndarray], target: Target) -> np.ndarray:
    """Return counts whose cost fits the target, as near below it as the lattice allows.

    The smallest counts are returned where even those do not fit.

    Args:
        lattice: the counts to choose from.
        levels: ``{group: pruning level of every unit}`` for every group that moves.
        target: what the result may cost.
    """
    counts = descend(lattice, levels, target)
    counts = climb(lattice, levels, counts, target)
    return exchange(lattice, levels, counts, target)


def descend(lattice: Lattice, levels: Mapping[str, np.ndarray], target: Target) -> np.ndarray:
    """Return the counts of the lowest pruning level whose cost fits the target."""
    owner, level = _flat(lattice, levels)
    order = owner[np.argsort(level, kind="stable")]

    def counts(pruned: int) -> np.ndarray:
        left = lattice.sizes - np.bincount(order[:pruned], minlength=len(lattice.sizes))
        return lattice.realised(lattice.rounded(np.maximum(left, lattice.lower)))

    best = lattice.smallest()
    over, fits = 0, len(order)
    while fits - over > 1:
        middle = (over + fits) // 2
        here = counts(middle)
        if target.fits(lattice.cost(here)):
            fits, best = middle, here
        else:
            over = middle
    return best


def climb(lattice: Lattice, levels: Mapping[str, np.ndarray], counts: np.ndarray, target: Target) -> np.ndarray:
    """Add back the units that are worth most, a step of a group at a time, until the cost is near the target.

    A group whose next step does not fit is left there; while steps fit, twice as many are tried together.
    """
    ladders = _ladders(lattice, levels)
    heap = [(-float(ladder[counts[group]]), group) for group, ladder in ladders.items() if counts[group] < len(ladder)]
    heapq.heapify(heap)
    steps, cost = 1, lattice.cost(counts)
    for _ in range(_CLIMB_COSTS):
        if not heap or target.near(cost):
            break
        left = heap.copy()
        got = lattice.realised(_stepped(lattice, ladders, left, counts, steps))
        grown = (got >= counts).all() and (got > counts).any()
        new = lattice.cost(got) if grown else cost
        if grown and target.fits(new):
            heap, counts, cost, steps = left, got, new, steps * 2
        elif steps > 1:
            steps = 1
        else:
            heapq.heappop(heap)  # this group's next step does not fit: later ones cost more
    return counts


def exchange(lattice: Lattice, levels: Mapping[str, np.ndarray], counts: np.ndarray, target: Target) -> np.ndarray:
    """Where the climb stopped short of the target, insist on a step or more of a group and search again below it.

    It is paid by the units that have the lowest levels elsewhere. The fullest result stays.
    """
    best, full = counts, target.fullness(lattice.cost(counts))
    ladders = {g: ladder for g, ladder in _ladders(lattice, levels).items() if counts[g] < lattice.sizes[g]}
    chosen = heapq.nlargest(_INSISTED_GROUPS, ladders, key=lambda g: ladders[g][counts[g]])
    tries = itertools.product(range(_INSISTED_STEPS), chosen)
    for more, group in itertools.islice(tries, max(1, _SEARCHED_GROUPS // len(counts))):
        if full >= NEAR:
            break
        count = lattice.above(int(counts[group]) + more * lattice.multiple, group)
        raised = lattice.raised(group, count)
        trial = climb(raised, levels, descend(raised, levels, target), target)
        cost = lattice.cost(trial)
        if target.fits(cost) and target.fullness(cost) > full:
            best, full = trial, target.fullness(cost)
    return best


def _stepped(
    lattice: Lattice, ladders: Mapping[int, np.ndarray], heap: list[tuple[float, int]], counts: np.ndarray, steps: int
) -> np.ndarray:
    """Take ``steps`` steps up, each in the group whose best missing unit has the highest level; ``heap`` advances."""
    trial = counts.copy()
    for _ in range(steps):
        if not heap:
            break
        group = heap[0][1]
        trial[group] = lattice.above(int(trial[group]), group)
        if trial[group] < lattice.sizes[group]:
            heapq.heapreplace(heap, (-float(ladders[group][trial[group]]), group))
        else:
            heapq.heappop(heap)
    return trial


def _ladders(lattice: Lattice, levels: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Return ``{group index: levels, highest first}``: entry ``count`` is the level of the next unit to come back."""
    return {
        index: np.sort(levels[name])[::-1]
        for index, name in enumerate(lattice.names)
        if lattice.moving[index] and name in levels
    }


def _flat(lattice: Lattice, levels: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (group index, level) of every unit of every group that moves."""
    moving = [(i, levels[name]) for i, name in enumerate(lattice.names) if lattice.moving[i]]
    if not moving:
        return np.empty(0, dtype=np.int64), np.empty(0)
    owner = np.repeat([i for i, _ in moving], [len(values) for _, values in moving])
    return owner, np.concatenate([values for _, values in moving])
