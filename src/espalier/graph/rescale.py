"""Scales that Python or a kernel derives from a size: attention's 1/sqrt(head_dim).

Cutting head_dim from d to d' would change such a factor. The function is kept by multiplying the last affine factor on
the scaled value's path (W_q and b_q, or the query norm's weight) by the inverse change, where everything in between is
linear and those weights feed nothing else. A kernel's scale that cannot be compensated freezes its head dimension; a
factor that Python computes and that cannot be compensated is taken as the model's own meaning: a statistic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ..core import Plan, PlanError
from .axes.inference import Axes
from .axes.linear_paths import MULS, LinearPaths
from .axes.units import Dim
from .carried_grids import scale_rows_
from .recording.record import Op, Record, walk
from .recording.sizes import Expr, Real, Size, evaluate, leaves
from .recording.tensors import named_tensors

if TYPE_CHECKING:
    from .graph import Graph


@dataclass(frozen=True, eq=False)
class Rescaled:
    """A factor that follows a size, and the parameter rows that make up for it.

    Attributes:
        factor: the expression of the factor (or shift) in the model's Python, or None for a kernel's 1/sqrt(size of
            ``dim``).
        divides: whether the value is divided by it.
        dim: the dimension whose size the factor follows.
        rows: ``{tensor name: row numbers}`` to multiply; None where it cannot be compensated.
        step: index of the operator in the eval record.
    """

    factor: Expr | None
    divides: bool
    dim: Dim | None
    rows: dict[str, Tensor] | None
    step: int


def find_rescaled(axes: Axes, record: Record) -> list[Rescaled]:
    """Find every factor of the eval record that a cut may change."""
    search = LinearPaths(record)
    found = []
    for training, step in axes.implicit:
        if not training and record is not None:
            query = record.ops[step].refs()[0]
            dim = axes.values[False][query][-1]
            if dim.shape[1] and axes.units.resolve(dim).shape[1]:
                found.append(Rescaled(None, False, dim, search.rows(query, step), step))
    for step, op in enumerate(record.ops):
        for item in walk((op.args, op.kwargs)):
            if _follows_size(item, op):
                divides = op.name.startswith("aten.div")
                product = op.name.removeprefix("aten.") in MULS
                rows = search.rows(op.outs[0], None) if product and op.outs[0] is not None else None
                found.append(Rescaled(item.expr, divides, None, rows, step))
    return found


_SHIFTS = {"add", "add_", "sub", "sub_", "rsub"}  # nothing makes up for a shift: it is the model's own meaning


def _follows_size(item: object, op: Op) -> bool:
    name = op.name.removeprefix("aten.")
    if not (name in MULS and isinstance(item, Real | Size) or name in _SHIFTS and isinstance(item, Real)):
        return False
    return any(True for _ in leaves(item.expr))


def rescale(model: nn.Module, graph: Graph, plan: Plan) -> None:
    """Multiply, in a model that ``plan`` was just applied to, the rows that make up for changed factors."""
    alive = graph.alive(plan)
    tensors = named_tensors(model)
    for one in graph.rescaled:
        if one.rows is None:
            continue
        factor = change(graph, plan, alive, one)
        for name, rows in one.rows.items() if factor != 1.0 else ():
            kept = graph.kept(graph.leaves[name][0], alive)
            marked = torch.zeros(len(kept), dtype=torch.bool)
            marked[rows] = True
            own = marked[torch.from_numpy(kept)].nonzero().flatten().to(tensors[name].device)
            scale_rows_(model, name, own, factor)


def change(graph: Graph, plan: Plan, alive: np.ndarray, one: Rescaled) -> float:
    """Return what the rows must be multiplied by.

    Raises:
        PlanError: the factor is zero before or after.
    """
    if one.factor is None:
        kept = graph.kept(one.dim, alive)  # type: ignore[arg-type]
        return math.sqrt(kept.sum() / len(kept))
    attributes = graph.attribute_values(plan)
    values = graph.axes.values[False]
    old = evaluate(one.factor, lambda e: graph.originals[e[1:]] if e[0] == "attr" else len(values[e[1]][e[2]]))
    new = evaluate(
        one.factor,
        lambda e: attributes[e[1:]] if e[0] == "attr" else int(graph.kept(values[e[1]][e[2]], alive).sum()),
    )
    if not old or not new:
        source = graph.records[0].ops[one.step].source
        raise PlanError(f"the plan makes a factor {new:g} that was {old:g}, at {source}: keep more units")
    return new / old if one.divides else old / new
