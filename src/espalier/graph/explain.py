"""Words: what the graph knows about one name of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core import Group, Slot, UnknownNameError
from .recording.looks import looks

if TYPE_CHECKING:
    from .graph import Graph

_SHOWN = 8  # names of one residual stream's companions; there may be hundreds


def explain(graph: Graph, name: str) -> str:
    """Say which groups a module, a container of modules, a tensor or a group is, who else is, and what freezes it.

    Raises:
        UnknownNameError: nothing of that name was traced; the message has the nearest name.
    """
    if name in graph.groups:
        return "\n".join([*_group(graph, graph.groups[name]), *_looks(graph, graph.groups[name].slots[0].tensor)])
    modules = _modules(graph)
    if name not in graph.shapes and name not in modules:
        known = {*graph.groups, *graph.shapes, *modules}
        raise UnknownNameError("module, tensor or group", str(name), known)
    lines = [*_groups_of(graph, name), *_frozen(graph, name)]
    if not lines:
        held = any(_within(tensor, name) for tensor in graph.shapes)
        lines = ["  the example does not reach its tensors: they stay" if held else "  it has no tensors to cut"]
    return "\n".join([f"{name}:", *lines, *_looks(graph, name)])


def _group(graph: Graph, group: Group) -> Iterator[str]:
    """Yield all about one group."""
    yield f"group {group.name}: {group.size} units"
    yield from (f"  {_place(slot)}" for slot in group.slots)
    if group.statistics:
        yield "  a statistic is taken over it: cutting changes what the kept units compute"
    yield from _followed(graph, group)


def _groups_of(graph: Graph, name: str) -> Iterator[str]:
    """Yield the groups of a module's or tensor's dimensions."""
    for group in graph.groups.values():
        mine = [slot for slot in group.slots if _within(slot.tensor, name)]
        if mine:
            yield f"  {', '.join(map(_place, mine))}: group {group.name}, {group.size} units"
            others = sorted({slot.tensor for slot in group.slots if not _within(slot.tensor, name)})
            yield "    lives with " + (_listed(others) or "nothing else")
            yield from (f"  {line}" for line in _followed(graph, group))


def _frozen(graph: Graph, name: str) -> Iterator[str]:
    for axis in graph.frozen:
        if _within(axis.tensor, name):
            place = f" at {axis.source}" if axis.source else ""
            yield f"  {axis.tensor} dim {axis.dim}: {axis.positions} frozen: {axis.reason}{place}"


def _looks(graph: Graph, name: str) -> Iterator[str]:
    """Yield where Python looks at values around a name, or in it: another path may use it in another way."""
    for place, (scope, word) in looks(graph.records).items():
        if not scope or _within(name, scope) or _within(scope, name):
            yield f"  one path of it was recorded: Python looks at values at {place} ({word})"


def _followed(graph: Graph, group: Group) -> Iterator[str]:
    yield from (f"  size follows {tie.reason}" for tie in graph.ties if tie.derived == group.name)


def _listed(names: list[str]) -> str:
    """Return the names, or the first few and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + f", and {more} more" if more > 1 else ", ".join(names)


def _place(slot: Slot) -> str:
    return f"{slot.tensor} dim {slot.dim} ({slot.role})"


def _within(tensor: str, name: str) -> bool:
    return tensor == name or tensor.startswith(f"{name}.")


def _modules(graph: Graph) -> set[str]:
    """Return the names of all modules that hold tensors or ran, and of those around them."""
    found = {tensor.rpartition(".")[0] for tensor in graph.shapes}
    found |= {op.scope for record in graph.records for op in record.ops}
    around = {".".join(path[:i]) for path in (name.split(".") for name in found) for i in range(1, len(path) + 1)}
    return around - {""}
