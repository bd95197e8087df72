"""Groups: interchangeable units become one user-visible axis.

Atomic units that occur equally often in the same (tensor, dimension, column) places, and in the same equations, are
siblings: removing any of them has the same consequences. Places are summed as random 64-bit tags.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...core import Frozen, Group, Role, Slot
from .inference import Axes, Dims
from .polynomial import Poly
from .units import NONE, Dim, Why

KERNEL = "it is a kernel dimension"
ALONE = Why("it is one unit: it could only be emptied")
UNREACHED = Why("the example does not reach these positions, and a longer one may")


@dataclass(eq=False)
class Partition:
    """Which group, and which unit of it, every atomic unit of the arena is.

    Attributes:
        group, rank: a number a unit, -1 and 0 where it belongs to none.
        sizes: units a group.
    """

    axes: Axes
    group: np.ndarray
    rank: np.ndarray
    sizes: list[int]

    def __post_init__(self) -> None:
        self._polys: dict[int, tuple[Dim, Poly]] = {}

    def count(self, dim: Dim) -> Poly:
        """Return how many positions ``dim`` keeps, as a polynomial in group sizes."""
        if dim.shape[1] == 0:
            return Poly.const(len(dim))
        if id(dim) not in self._polys:
            self._polys[id(dim)] = (dim, self._count(self.axes.units.resolve(dim)))
        return self._polys[id(dim)][1]

    def _count(self, atoms: Dim) -> Poly:
        if atoms.shape[1] == 0:
            return Poly.const(len(atoms))
        groups = np.where(atoms > NONE, self.group[atoms], -1)
        if (groups == groups[0]).all():
            return _term(len(atoms), tuple(g for g in groups[0].tolist() if g >= 0), self.sizes)
        patterns, counts = np.unique(np.sort(groups, axis=1), axis=0, return_counts=True)
        total = Poly({})
        for pattern, n in zip(patterns.tolist(), counts.tolist(), strict=True):
            total = total + _term(n, tuple(g for g in pattern if g >= 0), self.sizes)
        return total


def _term(rows: int, groups: tuple[int, ...], sizes: list[int]) -> Poly:
    whole = 1
    result = Poly.const(1)
    for g in groups:
        whole *= sizes[g]
        result = result * Poly.symbol(g)
    return Poly.const(Fraction(rows, whole)) * result


def partition(axes: Axes, leaves: dict[str, Dims]) -> Partition:
    """Sort the free units into groups; units that share a row with a sibling, or stand alone, are frozen first."""
    while True:
        found = _siblings(axes, leaves)
        if not _freeze_misfits(axes, leaves, found):
            return found


def _siblings(axes: Axes, leaves: dict[str, Dims]) -> Partition:
    count = axes.units._count
    tags = np.zeros(count, np.uint64)
    seen = np.zeros(count, bool)
    random = np.random.default_rng(0)

    def add(dim: Dim, occurs: bool) -> None:
        atoms = axes.units.resolve(dim)
        for j in range(atoms.shape[1]):
            column = atoms[:, j][atoms[:, j] > NONE]
            _add(tags, column, random.integers(1, 2**63, dtype=np.uint64))
            if occurs:
                seen[column] = True

    for dims in leaves.values():
        for dim in dims:
            add(dim, True)
    done: set[int] = set()
    for equation in axes.equations:
        for side in (equation.left, equation.right):
            if isinstance(side, np.ndarray) and id(side) not in done:
                done.add(id(side))
                add(side, False)
    free = np.nonzero(seen)[0]
    _, inverse = np.unique(tags[free], return_inverse=True)
    inverse = inverse.reshape(-1)
    group = np.full(count, -1, np.int32)
    rank = np.zeros(count, np.int32)
    order = np.argsort(inverse, kind="stable")
    sizes = np.bincount(inverse) if len(inverse) else np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else sizes
    group[free] = inverse
    rank[free[order]] = np.arange(len(free)) - np.repeat(starts, sizes)
    return Partition(axes, group, rank, sizes.tolist())


def _add(tags: np.ndarray, units: np.ndarray, tag: np.uint64) -> None:
    """Add a tag to each unit as often as it occurs; ``np.add.at`` is slow, and most columns repeat nothing."""
    once = len(units) < 2 or bool((units[1:] > units[:-1]).all())
    if once:
        tags[units] += tag
    else:
        np.add.at(tags, units, tag)


def _freeze_misfits(axes: Axes, leaves: dict[str, Dims], found: Partition) -> bool:
    misfits = np.array([size == 1 for size in found.sizes], bool)
    whys = {int(g): ALONE for g in np.nonzero(misfits)[0]} | dict.fromkeys(_unreached(axes, leaves, found), UNREACHED)
    for dims in leaves.values():
        for dim in dims:
            atoms = axes.units.resolve(dim)
            if atoms.shape[1] < 2:
                continue
            groups = np.sort(np.where(atoms > NONE, found.group[atoms], -1), axis=1)
            for j in range(1, groups.shape[1]):
                clash = groups[:, j][(groups[:, j] == groups[:, j - 1]) & (groups[:, j] >= 0)]
                for g in np.unique(clash).tolist():
                    whys[g] = Why("its positions meet each other")
    for g, why in whys.items():
        axes.units.freeze(np.nonzero(found.group == g)[0].astype(np.int32)[:, None], why)
    return bool(whys)


def _unreached(axes: Axes, leaves: dict[str, Dims], found: Partition) -> set[int]:
    """Return the groups that are the rest of one tensor of which the example read a fixed part: positions."""
    places, rests = np.zeros(len(found.sizes), np.int64), set()
    for dims in leaves.values():
        for dim in dims:
            atoms = axes.units.resolve(dim)
            here = np.unique(found.group[atoms[atoms > NONE]]) if atoms.shape[1] else np.zeros(0, np.int64)
            here = here[here >= 0]
            places[here] += 1
            if len(here) and not atoms.any(axis=1).all():
                rests.update(here.tolist())
    return {g for g in rests if places[g] == 1}


def describe(axes: Axes, leaves: dict[str, Dims], found: Partition) -> tuple[list[Group], list[Frozen]]:
    """Return groups, in their numbers' order, and what is frozen."""
    slots: list[list[tuple[Slot, int, int]]] = [[] for _ in found.sizes]
    frozen: list[Frozen] = []
    for name, dims in leaves.items():
        for d, dim in enumerate(dims):
            atoms = axes.units.resolve(dim)
            role = axes.roles.get((name, d)) or _default_role(len(dims), d)
            for j in range(atoms.shape[1]):
                for g, positions in _positions(atoms[:, j], found):
                    slots[g].append((Slot(name, d, positions, role), j, atoms.shape[1]))
            frozen.extend(_frozen(axes, name, d, dim, atoms))
    statistics = _statistics(axes, found)
    names = _names(slots)
    groups = [
        Group(names[g], found.sizes[g], tuple(s for s, _, _ in slots[g]), g in statistics)
        for g in range(len(found.sizes))
    ]
    return groups, frozen


def _default_role(rank: int, d: int) -> Role:
    if rank == 1:
        return Role.SHIFT
    return Role.PRODUCER if d == 0 else Role.READER


def _positions(column: np.ndarray, found: Partition):
    groups = np.where(column > NONE, found.group[column], -1)
    for g in [groups[0]] if (groups == groups[0]).all() else np.unique(groups):
        if g >= 0:
            rows = np.nonzero(groups == g)[0]
            ranks = found.rank[column[rows]]
            if (np.diff(ranks) < 0).any():
                rows = rows[np.argsort(ranks, kind="stable")]
            yield int(g), rows.reshape(found.sizes[g], -1)


def _frozen(axes: Axes, name: str, d: int, dim: Dim, atoms: Dim):
    if dim.shape[1] == 0:
        return
    fixed = np.ones(len(dim), bool) if atoms.shape[1] == 0 else ~atoms.any(axis=1)
    if not fixed.any():
        return
    everything = axes.units.resolve(dim, keep_frozen=True)[fixed]
    for why, count in axes.units.reasons(everything.max(axis=1)).items():
        if not why.reason.startswith(KERNEL):
            yield Frozen(name, d, count, why.reason, why.source)


def _statistics(axes: Axes, found: Partition) -> set[int]:
    marked = np.zeros(len(found.sizes) + 1, bool)  # the last entry takes what is in no group
    for dim, _ in axes.statistics:
        marked[found.group[axes.units.resolve(dim)]] = True
    return set(np.nonzero(marked[:-1])[0].tolist())


def _names(slots: list[list[tuple[Slot, int, int]]]) -> list[str]:
    """Name each group by its first producer; where several share that place, by their first position in it too."""
    first = []
    for own in slots:
        best = min(own, key=lambda s: s[0].role is not Role.PRODUCER)  # min is stable: the earliest producer
        slot, column, columns = best
        first.append((f"{slot.tensor}:{slot.dim}" + (f".{column}" if columns > 1 else ""), int(slot.positions.min())))
    names = [name for name, _ in first]
    times = Counter(names)
    return [f"{name}@{start}" if times[name] > 1 else name for name, start in first]
