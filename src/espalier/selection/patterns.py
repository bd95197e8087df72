"""Name patterns: which groups the user means by ``layer3.*``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..core import Role, Slot, UnknownNameError

if TYPE_CHECKING:
    from ..graph import Graph


def matched(graph: Graph, patterns: Iterable[str], *, owned: bool = False) -> dict[str, list[str]]:
    """Return ``{pattern: groups it matches}``.

    A pattern (``fnmatch``, case counts) is tried on the group's name and on the names of the tensors it appears in;
    the name of a module means all its tensors.

    Args:
        owned: leave out tensors that only read the group: ``layer3`` then does not reach into what layer2 produces.

    Raises:
        UnknownNameError: a pattern matches nothing.
    """
    names: dict[str, list[str]] = {}
    for group in graph.groups.values():
        for name in {group.name, *_tensors(group.slots, owned)}:
            names.setdefault(name, []).append(group.name)
    found = {}
    for pattern in patterns:
        test = tester(pattern)
        groups = dict.fromkeys(group for name, owners in names.items() if test(name) for group in owners)
        if not groups:
            raise UnknownNameError(
                "pattern", pattern, names, "Patterns match group names and the tensors of prunable groups."
            )
        found[pattern] = list(groups)
    return found


def _tensors(slots: Iterable[Slot], owned: bool) -> set[str]:
    return {slot.tensor for slot in slots if not (owned and slot.role is Role.READER)}


def tester(pattern: str) -> Callable[[str], bool]:
    """Return a test of a name: it matches the pattern, or the pattern matches a module that holds it."""
    either = re.compile(f"(?:{fnmatch.translate(pattern)})|(?:{fnmatch.translate(pattern + '.*')})")
    return lambda name: either.match(name) is not None
