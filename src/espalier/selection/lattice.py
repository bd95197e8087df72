"""Lattice: the counts that a plan may use: multiples, bounds and ties respected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..core import Cost
from .bounds import Bounds
from .costs import Costs

if TYPE_CHECKING:
    from ..graph import Graph

_ROUNDS = 16  # of repair before the groups of a tie are left whole


@dataclass(frozen=True, eq=False)
class Lattice:
    """Counts are integer arrays of shape (groups,), in the order of ``graph.groups``.

    Attributes:
        graph: the network.
        bounds: fewest units a group, and groups held whole.
        multiple: counts are multiples of it, or the group's size.
        costs: what counts cost; the graph's arithmetic when None.
    """

    graph: Graph
    bounds: Bounds
    multiple: int = 1
    costs: Costs | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Group names, in order."""
        return tuple(self.graph.groups)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Units a group has."""
        return np.array([group.size for group in self.graph.groups.values()], dtype=np.int64)

    @cached_property
    def lower(self) -> np.ndarray:
        """Fewest units a group may keep: its bound, rounded up to a multiple, or all where that is above its size."""
        least = np.array([self.bounds.lower[name] for name in self.names], dtype=np.int64)
        return np.minimum(-(-least // self.multiple) * self.multiple, self.sizes)

    @cached_property
    def moving(self) -> np.ndarray:
        """Groups whose count the search chooses: not held, not derived from others, with room above their bound."""
        derived = {tie.derived for tie in self.graph.ties}
        fixed = np.array([name in derived or name in self.bounds.held for name in self.names], dtype=bool)
        return ~fixed & (self.lower < self.sizes)

    @cached_property
    def tied(self) -> np.ndarray:
        """For every group, the number of its component of tied groups; -1 where no tie reaches it."""
        index = {name: i for i, name in enumerate(self.names)}
        root = np.full(len(self.names), -1)
        for tie in self.graph.ties:
            members = [index[name] for name in {tie.derived, *tie.powers}]
            roots = {int(root[m]) for m in members} - {-1}
            new = min(roots, default=members[0])
            root[np.isin(root, list(roots))] = new
            root[members] = new
        return root

    @cached_property
    def held(self) -> tuple[str, ...]:
        """Groups that keep all their units and that a tie reaches."""
        return tuple(
            name for name, tie in zip(self.names, self.tied, strict=True) if tie >= 0 and name in self.bounds.held
        )

    def rounded(self, counts: np.ndarray) -> np.ndarray:
        """Return the nearest multiples; what is whole, or would round above that, is whole."""
        nearest = (2 * counts + self.multiple) // (2 * self.multiple) * self.multiple
        return np.minimum(np.where(counts == self.sizes, counts, nearest), self.sizes)

    def above(self, count: int, group: int) -> int:
        """Return the next count of a group above ``count``."""
        return min((count // self.multiple + 1) * self.multiple, int(self.sizes[group]))

    def raised(self, group: int, count: int) -> Lattice:
        """Return the lattice where a group keeps at least ``count`` units."""
        lower = {**self.bounds.lower, self.names[group]: count}
        return replace(self, bounds=replace(self.bounds, lower=lower))

    def off(self, counts: np.ndarray) -> np.ndarray:
        """Return where a count that the search chose is no multiple: ties can force that."""
        return self.moving & (counts % self.multiple != 0) & (counts != self.sizes)

    def realised(self, counts: np.ndarray) -> np.ndarray:
        """Return counts near ``counts`` that satisfy every tie, at or above every bound."""
        if not (self.graph.ties or self.graph.conditions):
            return counts
        got = self._legal(counts)
        for _ in range(_ROUNDS):
            off = self.off(got)
            lowered = np.where(off, got // self.multiple * self.multiple, got)
            if not off.any() or (lowered < self.lower).any():
                break
            got = self._legal(lowered)
        return got

    def _legal(self, counts: np.ndarray) -> np.ndarray:
        """Satisfy the ties; where that goes below a bound, ask for more of the groups that are tied to it."""
        asked = counts
        for attempt in range(_ROUNDS):
            got = self._feasible(asked)
            low = np.unique(self.tied[got < self.lower])
            if not low.size:
                return got
            share = (attempt + 1) / _ROUNDS  # the last attempt asks for all of them, which is always feasible
            more = asked + np.ceil((self.sizes - asked) * share).astype(np.int64)
            asked = np.where(np.isin(self.tied, low[low >= 0]), more, asked)
        return self._feasible(asked)

    def _feasible(self, counts: np.ndarray) -> np.ndarray:
        got = self.graph.feasible(self.named(counts), held=self.held)
        return np.array([got[name] for name in self.names], dtype=np.int64)

    def named(self, counts: np.ndarray) -> dict[str, int]:
        """Return ``{group: count}``."""
        return dict(zip(self.names, counts.tolist(), strict=True))

    def cost(self, counts: np.ndarray) -> Cost:
        """Return what the network costs with these counts."""
        return (self.costs or Costs(self.graph)).of_counts(self.named(counts))

    def smallest(self) -> np.ndarray:
        """Return the smallest counts that bounds and ties allow."""
        return self.realised(self.lower.copy())
