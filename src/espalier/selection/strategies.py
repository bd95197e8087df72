"""Strategies: in which order units go.

A strategy gives every unit a *level* in (0, 1]: at pruning level t, the units whose level is at most t go. The search
then needs one number, t; whatever tells strategies apart is in the levels.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..core import Group, Slot

if TYPE_CHECKING:
    from ..graph import Graph

Arrays = Mapping[str, np.ndarray]
Strategy = Callable[["Graph", Arrays], dict[str, np.ndarray]]


def uniform(graph: Graph, scores: Arrays) -> dict[str, np.ndarray]:
    """Prune the same ratio of every group.

        level[u] = (rank of u in its group + 1) / size

    Source: Li et al., ICLR 2017, arXiv:1608.08710 (a ratio a layer); the control of every global strategy.

    Args:
        graph: not used; every strategy takes the same arguments.
        scores: one array a group that may be pruned.
    """
    return {name: within(values) for name, values in scores.items()}


def global_(graph: Graph, scores: Arrays) -> dict[str, np.ndarray]:
    """Put one threshold over all groups' scores, as the criterion normalised them.

        level[u] = (rank of u among all units + 1) / number of units

    Source: Liu et al., Network Slimming, ICCV 2017, arXiv:1708.06519 (one threshold over the whole network).

    Args:
        graph: not used.
        scores: one array a group that may be pruned.
    """
    return _pooled(scores)


def isomorphic(graph: Graph, scores: Arrays) -> dict[str, np.ndarray]:
    """Put one threshold over the scores of groups of the same shape; every shape loses the same ratio.

        level[u] = (rank of u among units of groups with the same signature + 1) / number of those units

    The signature of a group is the multiset, over its slots, of (role, dimension, shape of the tensor), where every
    width that can be pruned stands as a blank: a 3 x 3 convolution is compared with 3 x 3 convolutions of any width.

    Source: Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024, arXiv:2407.04616, section 3. Recalled, not
    re-checked against the paper's text.
    Differs: (1) isomorphism is that of a group's slots, not of the subgraph of operators around them.

    Args:
        graph: gives the groups' shapes.
        scores: one array a group that may be pruned.
    """
    widths = {(slot.tensor, slot.dim) for group in graph.groups.values() for slot in group.slots}
    alike: dict[frozenset, dict[str, np.ndarray]] = defaultdict(dict)
    for name, values in scores.items():
        alike[_signature(graph, graph.groups[name], widths)][name] = values
    return {name: levels for members in alike.values() for name, levels in _pooled(members).items()}


STRATEGIES: dict[str, Strategy] = {"uniform": uniform, "global": global_, "isomorphic": isomorphic}


def ranked(scores: np.ndarray) -> np.ndarray:
    """Return units from the one worth most to the one worth least; equal units in their own order."""
    return np.argsort(-scores, kind="stable")


def within(scores: np.ndarray) -> np.ndarray:
    """Return each unit's place in its group, counted from the one worth least: (rank + 1) / size."""
    place = np.empty(len(scores))
    place[ranked(scores)] = np.arange(len(scores), 0, -1) / max(len(scores), 1)
    return place


def _pooled(scores: Arrays) -> dict[str, np.ndarray]:
    """Rank the units of several groups together; equal scores go evenly from all groups, not from the first one."""
    if not scores:
        return {}
    flat = np.concatenate(list(scores.values()))
    order = np.argsort(flat, kind="stable")
    if (flat[order][1:] == flat[order][:-1]).any():
        place = np.concatenate([within(values) for values in scores.values()])
        order = np.lexsort((place, flat))
    levels = np.empty(len(flat))
    levels[order] = np.arange(1, len(flat) + 1) / len(flat)
    ends = np.cumsum([len(values) for values in scores.values()])
    return dict(zip(scores, np.split(levels, ends[:-1]), strict=True))


def _signature(graph: Graph, group: Group, widths: set[tuple[str, int]]) -> frozenset:
    """Return the multiset of what the group's slots look like, as hashable items."""

    def look(slot: Slot) -> tuple:
        shape = graph.shapes[slot.tensor]
        blank = tuple(0 if (slot.tensor, d) in widths and size > 1 else size for d, size in enumerate(shape))
        return slot.role, slot.dim, blank

    return frozenset(Counter(map(look, group.slots)).items())
