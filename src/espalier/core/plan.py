"""A plan: which units each group keeps."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from .errors import KindError, PlanError


@dataclass(frozen=True)
class Plan:
    """Plain data keyed by names; replays on any copy of the network.

    Attributes:
        keep: ``{group name: kept unit indices, ascending}``; a group that is not named keeps all its units.
        fingerprint: of the network that it was made for; "" fits any network with these groups.
        notes: what the planner wants the user to know.
        sizes: ``{group name: units before the cut}`` of every group, where the planner wrote it down; for people.

    Raises:
        KindError: it is no dictionary of unit numbers by group name.
        PlanError: a group would keep no unit, or the numbers are not ascending, distinct and 0 or above.
    """

    keep: Mapping[str, tuple[int, ...]]
    fingerprint: str = ""
    notes: tuple[str, ...] = field(default=())
    sizes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.keep, Mapping):
            raise KindError(f"a plan is {_FORM}, not {type(self.keep).__name__}")
        clean = {}
        for name, units in self.keep.items():
            kept = _numbers(name, units)
            if not kept:
                raise PlanError(f"group {name!r} would keep no unit; a group keeps at least one")
            if list(kept) != sorted(set(kept)) or kept[0] < 0:
                raise PlanError(f"group {name!r}: kept units must be ascending, distinct and not negative")
            clean[name] = kept
        object.__setattr__(self, "keep", clean)

    def __repr__(self) -> str:
        kept, total = sum(map(len, self.keep.values())), sum(self.sizes.values())
        count = f"{len(self.keep)} groups named, {kept} units kept in them"
        if self.sizes and self.keep.keys() <= self.sizes.keys():
            lost = {name: self.sizes[name] - len(units) for name, units in self.keep.items()}
            cut = sum(map(bool, lost.values()))
            count = f"{cut} of {len(self.sizes)} groups cut, {total - sum(lost.values())} of {total} units kept"
        return f"Plan({'; '.join([count, *self.notes])})"

    def to_json(self) -> str:
        """Return the plan as JSON; ``from_json(to_json())`` is the same plan."""
        keep = {name: list(units) for name, units in self.keep.items()}
        sizes = {"sizes": dict(self.sizes)} if self.sizes else {}
        return json.dumps({"keep": keep, "fingerprint": self.fingerprint, "notes": list(self.notes), **sizes})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan.

        Raises:
            PlanError: the text is not a plan.
        """
        try:
            data = json.loads(text)
            keep = {str(name): tuple(_unit(u) for u in units) for name, units in data["keep"].items()}
            sizes = {str(name): _unit(size) for name, size in data.get("sizes", {}).items()}
            return cls(keep, str(data.get("fingerprint", "")), tuple(map(str, data.get("notes", ()))), sizes)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PlanError(f"this text is not a plan: {error}") from error


_FORM = "a dictionary {group name: numbers of the units to keep}, such as {'conv1.weight:0': (0, 2, 5)}"


def _numbers(name: object, units: object) -> tuple[int, ...]:
    """Return the numbers of a group's units; a share or a count does not say which."""
    if not isinstance(name, str):
        raise KindError(f"a plan is {_FORM}; {name!r} is no name")
    if isinstance(units, Iterable) and not isinstance(units, str):
        with suppress(TypeError):  # a unit that is no number: the error below says so
            given = tuple(units)
            if bool not in map(type, given):
                return tuple(map(operator.index, given))
    shown = repr(units) if len(repr(units)) < 40 else type(units).__name__
    raise KindError(
        f"group {name!r} of a plan takes the numbers of the units to keep, such as (0, 2, 5), not {shown}: "
        "es.plan(graph, scores, budget) chooses them for a share or a count, and a group that is not named keeps all"
    )


def _unit(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not the number of a unit")
    return value
