"""``espalier trace``: groups, ties, frozen axes with reasons, and the prunable share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from .. import api
from ..graph import trace as trace_model
from .answer import Answer
from .options import Trace

if TYPE_CHECKING:
    from ..core import Tie
    from ..graph import Graph


def trace(chosen: Trace) -> Answer:
    """Trace the model on its default example and print what the engine found."""
    model = api.model(chosen.model)
    graph = trace_model(model, api.default_example(model, chosen.model))
    tables = (groups_table(graph), ties_table(graph), frozen_table(graph))
    cost = graph.cost()
    words = (
        f"{len(graph.groups)} groups, {sum(graph.sizes.values()):,} units; "
        f"{100 * graph.prunable_share:.1f} % of {cost.params:,} parameters are prunable; {cost.macs:,} MACs"
    )
    notes = (f"Note: {note}" for note in graph.notes)
    return Answer(to_data(graph), (*(table for table in tables if table.row_count), *notes, words))


def to_data(graph: Graph) -> dict[str, Any]:
    """Return what the engine found as JSON-ready data."""
    cost = graph.cost()
    return {
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "statistics": group.statistics,
                "slots": [{"tensor": s.tensor, "dim": s.dim, "role": str(s.role)} for s in group.slots],
            }
            for group in graph.groups.values()
        ],
        "ties": [{"derived": tie.derived, "equation": equation(tie), "reason": tie.reason} for tie in graph.ties],
        "frozen": [vars(axis) for axis in graph.frozen],
        "notes": list(graph.notes),
        "prunable_share": graph.prunable_share,
        "cost": vars(cost),
    }


def groups_table(graph: Graph) -> Table:
    """Return one row a group: name, units, the tensors it lies on."""
    table = Table(title="Groups", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("units", justify="right")
    table.add_column("places", overflow="fold")
    for group in graph.groups.values():
        first = ", ".join(f"{slot.tensor}:{slot.dim}" for slot in group.slots[:4])
        more = f" and {len(group.slots) - 4} more" if len(group.slots) > 4 else ""
        table.add_row(escape(group.name), str(group.size), escape(first) + more)
    return table


def ties_table(graph: Graph) -> Table:
    """Return one row a tie: the equation and the Python that imposes it."""
    table = Table("equation", "because", title="Ties", title_justify="left")
    for tie in graph.ties:
        table.add_row(escape(equation(tie)), escape(tie.reason))
    return table


def frozen_table(graph: Graph) -> Table:
    """Return one row a reason and source line, with the tensors that it freezes."""
    table = Table("reason", title="Frozen", title_justify="left")
    table.add_column("source", overflow="fold")
    table.add_column("axes", justify="right")
    table.add_column("for example", overflow="fold")
    by_reason: dict[tuple[str, str], list[str]] = {}
    for axis in graph.frozen:
        by_reason.setdefault((axis.reason, axis.source), []).append(f"{axis.tensor}:{axis.dim}")
    for (reason, source), axes in by_reason.items():
        table.add_row(escape(reason), escape(near(source)), str(len(axes)), escape(", ".join(axes[:3])))
    return table


def equation(tie: Tie) -> str:
    """Return the tie as an equation in words: ``size(a) = 2 * size(b) / 3``."""
    top, bottom = ([f"{n}"] if n != 1 else [] for n in tie.coefficient)
    for name, power in tie.powers.items():
        (top if power > 0 else bottom).extend([f"size({name})"] * abs(power))
    return f"size({tie.derived}) = {' * '.join(top) or '1'}" + (f" / ({' * '.join(bottom)})" if bottom else "")


def near(source: str) -> str:
    """Return ``file:line`` from where Python would import the file, which is shorter and says as much."""
    folders = [Path.cwd(), *(Path(folder) for folder in sys.path if folder)]
    inside = [folder for folder in folders if source.startswith(f"{folder}/")]
    return source[len(str(max(inside, key=lambda folder: len(str(folder))))) + 1 :] if inside else source
