"""Trace: record a model, infer its axes, solve its equations, and name what was found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from torch import nn

from ..core import Frozen, Group, ModelError, Tie, UnknownNameError
from .axes.conditions import conditions, equalities, input_notes, losses
from .axes.groups import Partition, describe, partition
from .axes.inference import Axes, Dims, infer
from .axes.input_sizes import InputSizes
from .axes.rules import rule_for
from .axes.ties import Solution, renumbered, solve
from .axes.units import Why
from .graph import Graph, Traced
from .kinds import check_model
from .recording.autocast import autocast_note
from .recording.capture import Forward, capture
from .recording.looks import looks_note
from .recording.meta_layouts import MetaLayouts
from .recording.record import Record
from .recording.sizes import Expr, leaves
from .recording.skeleton import size_values, skeleton
from .recording.tensors import collection_paused, named_tensors
from .recording.traceable import check_traceable, hungry, notes_on, untouched
from .rescale import Rescaled, find_rescaled
from .surgery.layer_sizes import layer_sizes


def trace(model: nn.Module, example: Any, forward_fn: Forward | None = None, *, free_outputs: bool = False) -> Graph:
    """Find which channels of a model live and die together, and what is frozen, and why.

    Records one forward pass in eval mode and one in train mode (auxiliary heads) on copies without data; the model,
    its buffers and the random state are untouched.

    Args:
        model: any module, on any device; also on meta.
        example: a tensor, a tuple of positional arguments, or a dict of keywords.
        forward_fn: ``forward_fn(model, example)``, for models that are not simply called.
        free_outputs: also let the outputs' own channels be cut.

    Raises:
        KindError: the model is no module.
        ModelError: the model does not run on the example, has no parameters, or holds what cannot be cut at all.
    """
    check_model("trace", model)
    check_traceable(model, example, given_forward=forward_fn is not None)
    with collection_paused():
        return _trace(model, example, forward_fn, free_outputs)


def _trace(model: nn.Module, example: Any, forward_fn: Forward | None, free_outputs: bool) -> Graph:
    layouts = MetaLayouts()
    records = [capture(model, example, forward_fn, layouts=layouts, training=False)]
    notes = list(notes_on(model))
    try:
        records.append(capture(model, example, forward_fn, layouts=layouts, training=True))
    except ModelError as error:
        notes.append(f"the train-mode forward was not recorded, heads that run only in training are unknown: {error}")
    notes.extend((*looks_note(records), *autocast_note(records), *hungry(records)))
    tensors = named_tensors(model)
    parameters = {id(p) for p in model.parameters()}
    touched = set().union(*(r.touched() for r in records))
    notes.extend(untouched(n for n, t in tensors.items() if id(t) in parameters and n not in touched))
    traced = Traced(
        shapes={n: tuple(t.shape) for n, t in tensors.items()},
        parameters=frozenset(n for n, t in tensors.items() if id(t) in parameters),
        originals=size_values(model),
        records=tuple(records),
        notes=tuple(notes),
        example=example,
        forward_fn=forward_fn,
        free_outputs=free_outputs,
        skeleton=skeleton(model, "meta"),
    )
    return _assemble(traced, _inferred(traced))


def freeze(graph: Graph, groups: Collection[str], reason: str) -> Graph:
    """Return the graph with some groups frozen, and what is tied to them with a size that they do not have.

    For groups whose cut did not prove itself (``ProofError.groups``), or that should stay whole in every plan.

    Args:
        graph: from ``trace``; it is untouched.
        groups: names of groups.
        reason: why, in words; ``frozen``, ``explain`` and reports repeat it.

    Raises:
        UnknownNameError: an unknown group, with the nearest name.
    """
    unknown = next((name for name in groups if name not in graph.groups), None)
    if unknown is not None:
        raise UnknownNameError("group", unknown, graph.groups)
    again = _assemble(graph, _inferred(graph))  # axes are arenas: the given graph's own are left alone
    numbers = [number for number, name in enumerate(again.groups) if name in set(groups)]
    members = np.nonzero(np.isin(again.partition.group, numbers))[0].astype(np.int32)
    again.axes.units.freeze(members[:, None], Why(reason))
    return _assemble(graph, again.axes)


def _inferred(traced: Traced) -> Axes:
    """Infer the axes of all records."""
    axes, (first, *others) = Axes(), traced.records
    infer(axes, first, rule_for, free_outputs=traced.free_outputs)
    for record in others:
        if record.same_operators(first):  # nothing is different in train mode: its axes are known
            axes.values[True] = axes.values[False]
        else:
            infer(axes, record, rule_for, free_outputs=traced.free_outputs)
    InputSizes(axes, traced.records, traced.originals).freeze()
    return axes


def _assemble(traced: Traced, axes: Axes) -> Graph:
    records = traced.records
    touched = set().union(*(r.touched() for r in records))
    leaves = {name: dims for name, dims in axes.leaves.items() if name in touched}
    rescaled = tuple(find_rescaled(axes, records[0]))
    _freeze_implicit(axes, records[0], rescaled)
    found, solution = _solved(axes, leaves, traced.originals, records)
    solution.attributes.update(layer_sizes(traced.skeleton, records, axes, leaves, found, solution))
    for one in rescaled:
        if one.rows is None and one.factor is not None:
            _mark_followers(axes, found, solution, one.factor, Why("Python computes a factor from its size"))
    found, groups, frozen, number = _in_order(axes, leaves, found)
    solution = renumbered(solution, number)
    decided = (axes, found, solution, traced.originals, records)
    known = {f.name: getattr(traced, f.name) for f in fields(Traced)}
    known["notes"] = tuple(dict.fromkeys((*traced.notes, *input_notes(*decided))))
    return Graph(
        groups={g.name: g for g in groups},
        frozen=tuple(frozen),
        ties=_named(solution, [g.name for g in groups]),
        axes=axes,
        partition=found,
        solution=solution,
        conditions=conditions(*decided),
        losses=losses(*decided),
        leaves=leaves,
        rescaled=rescaled,
        **known,
    )


def _freeze_implicit(axes: Axes, record: Record, rescaled: Sequence[Rescaled]) -> None:
    """Freeze head dimensions from which a kernel derives a scale that nothing can make up for."""
    for one in rescaled:
        if one.rows is None and one.dim is not None:
            source = record.ops[one.step].source
            axes.units.freeze(one.dim, Why("attention derives its scale from it, and no weights can make up", source))


def _solved(
    axes: Axes, leaves: dict[str, Dims], originals: dict[tuple, int], records: Sequence[Record]
) -> tuple[Partition, Solution]:
    """Sort into groups and solve the equations; what cannot be solved freezes, until everything is."""
    equal = [(r.training, *equality) for r in records for equality in equalities(r)]
    while True:
        found = partition(axes, leaves)
        solution = solve(axes, found, originals, equal)
        if not solution.refused:
            return found, solution
        for groups, why in solution.refused:
            members = np.nonzero(np.isin(found.group, list(groups)))[0].astype(np.int32)
            axes.units.freeze(members[:, None], why)


def _named(solution: Solution, names: list[str]) -> tuple[Tie, ...]:
    """Return the ties in the groups' names."""
    return tuple(
        Tie(
            names[tie.derived],
            {names[g]: power for g, power in tie.powers.items()},
            (tie.coefficient.numerator, tie.coefficient.denominator),
            f"{tie.why.reason} at {tie.why.source}" if tie.why.source else tie.why.reason,
        )
        for tie in solution.ties
    )


def _mark_followers(axes: Axes, found: Partition, solution: Solution, factor: Expr, why: Why) -> None:
    """Mark the groups whose sizes change a factor of the function as statistics."""
    for leaf in leaves(factor):
        if leaf[0] == "dim":
            axes.statistics.append((axes.values[False][leaf[1]][leaf[2]], why))
        elif leaf[1:] in solution.attributes:
            numbers = [int(s) for s in solution.attributes[leaf[1:]].symbols()]  # type: ignore[call-overload]
            members = np.nonzero(np.isin(found.group, numbers))[0].astype(np.int32)
            axes.statistics.append((members[:, None], why))


def _in_order(
    axes: Axes, leaves: dict[str, Dims], found: Partition
) -> tuple[Partition, list[Group], list[Frozen], dict[int, int]]:
    """Number groups in the order of the model's tensors, and units by position in their first place."""
    groups, frozen = describe(axes, leaves, found)
    rank_of = {name: i for i, name in enumerate(leaves)}
    order = sorted(range(len(groups)), key=lambda g: (rank_of[groups[g].slots[0].tensor], groups[g].name))
    renumber = np.empty(len(order) + 1, np.int64)
    renumber[-1] = -1
    for new, old in enumerate(order):
        renumber[old] = new
    sizes = [found.sizes[g] for g in order]
    number = {old: new for new, old in enumerate(order)}
    return Partition(axes, renumber[found.group], found.rank, sizes), [groups[g] for g in order], frozen, number
