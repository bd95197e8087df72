"""The graph: which channels live and die together, what is frozen and why, what a plan costs and does."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from ..core import Cost, Frozen, Group, ModelError, Plan, PlanError, SetAttribute, Slice, Surgery, Tie, UnknownNameError
from .capture import Forward, capture, size_values
from .cost import CostModel, compile_cost
from .groups import Partition, describe, partition
from .inference import Axes, Dims, infer
from .record import Record
from .rescale import Rescaled, find_rescaled
from .rules import rule_for
from .sizes import Expr, leaves
from .tensors import collection_paused, named_tensors
from .ties import Solution, feasible, renumbered, solve
from .units import Dim, Why


@dataclass(eq=False)
class Graph:
    """What ``trace`` found.

    Attributes:
        groups: ``{name: group}`` of everything that can be cut, in the order the network uses it.
        frozen: what must not change, with reasons.
        ties: equations between group sizes.
        shapes: ``{tensor name: shape}`` of every parameter, buffer and plain tensor attribute.
        notes: what the user should know (for instance that the train-mode forward could not be recorded).
    """

    groups: dict[str, Group]
    frozen: tuple[Frozen, ...]
    ties: tuple[Tie, ...]
    shapes: dict[str, tuple[int, ...]]
    parameters: frozenset[str]
    notes: tuple[str, ...]
    axes: Axes = field(repr=False)
    partition: Partition = field(repr=False)
    solution: Solution = field(repr=False)
    records: tuple[Record, ...] = field(repr=False)
    leaves: dict[str, Dims] = field(repr=False)
    originals: dict[tuple, int] = field(repr=False)
    rescaled: tuple[Rescaled, ...] = field(repr=False)
    example: Any = field(repr=False, default=None)
    forward_fn: Forward | None = field(repr=False, default=None)

    @cached_property
    def order(self) -> list[str]:
        """Group names by number."""
        return list(self.groups)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Units a group."""
        return {name: group.size for name, group in self.groups.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Identify the architecture: tensor names, shapes and groups."""
        text = repr((sorted(self.shapes.items()), sorted(self.sizes.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def computed(self) -> frozenset[tuple]:
        """Attributes ``(module, path)`` that the model's Python computes sizes with."""
        expressions = [e.left for e in self.axes.equations if isinstance(e.left, tuple)]
        expressions += [side for r in self.records for pair in r.comparisons for side in pair]
        return frozenset(leaf[1:] for e in expressions for leaf in leaves(e) if leaf[0] == "attr")

    # ---- cost -------------------------------------------------------------------------------------------------------

    @cached_property
    def _cost_model(self) -> CostModel:
        touched = {n: dims for n, dims in self.leaves.items() if n in self.parameters}
        untouched = sum(int(np.prod(self.shapes[n])) for n in self.parameters if n not in touched)
        return compile_cost(self.records[0], self.axes.values[False], self.partition, touched, untouched)

    def cost(self, counts: Mapping[str, int] | None = None) -> Cost:
        """Return the cost at batch 1 when groups keep ``counts`` units; a group not named keeps all."""
        counts = counts or {}
        return self._cost_model.cost([counts.get(name, size) for name, size in self.sizes.items()])

    def plan_cost(self, plan: Plan) -> Cost:
        """Return the cost of a plan."""
        return self.cost({name: len(units) for name, units in plan.keep.items()})

    @cached_property
    def prunable_share(self) -> float:
        """Share of the parameters' elements that lie on at least one prunable axis."""
        total = sum(int(np.prod(self.shapes[n])) for n in self.parameters)
        free = 0.0
        for name in self.parameters & self.leaves.keys():
            fixed = 1.0
            for dim in self.leaves[name]:
                atoms = self.axes.units.resolve(dim)
                fixed *= 1.0 - (float(atoms.any(axis=1).mean()) if atoms.shape[1] else 0.0)
            free += (1.0 - fixed) * int(np.prod(self.shapes[name]))
        return free / total if total else 0.0

    @cached_property
    def multiples(self) -> dict[int, int]:
        """Group numbers whose kept count a kernel wants to be a multiple."""
        found: dict[int, int] = {}
        for dim, multiple in self.axes.multiples:
            for monomial in self.partition.count(dim).terms:
                if len(monomial) == 1:
                    found[int(monomial[0][0])] = multiple  # type: ignore[call-overload]
        return found

    # ---- plans ------------------------------------------------------------------------------------------------------

    def feasible(self, counts: Mapping[str, int], held: Collection[str] = ()) -> dict[str, int]:
        """Return counts near ``counts`` that satisfy every tie: derived groups follow, drivers round down.

        Groups in ``held`` keep their given counts where the ties allow.
        """
        wanted = [min(max(int(counts.get(n, s)), 1), s) for n, s in self.sizes.items()]
        for g, multiple in self.multiples.items():
            whole = list(self.sizes.values())[g]
            wanted[g] = min(max(wanted[g] // multiple, 1) * multiple, whole)
        fixed = {g for g, name in enumerate(self.order) if name in set(held)} if held else set()
        result = feasible(wanted, list(self.sizes.values()), self.solution.ties, fixed)
        return dict(zip(self.order, result, strict=True))

    def check(self, plan: Plan) -> None:
        """Check that a plan fits this network.

        Raises:
            PlanError: it was made for another network, names a group or unit that is not there, or breaks a tie.
            UnknownNameError: an unknown group, with the nearest name.
        """
        if plan.fingerprint and plan.fingerprint != self.fingerprint:
            raise PlanError(
                f"this plan was made for another network (fingerprint {plan.fingerprint}, this one has "
                f"{self.fingerprint}): trace this network and plan again"
            )
        for name, units in plan.keep.items():
            if name not in self.groups:
                raise UnknownNameError("group", name, self.groups)
            if units[-1] >= self.sizes[name]:
                raise PlanError(f"group {name!r} has {self.sizes[name]} units; the plan keeps unit {units[-1]}")
        counts = self.counts(plan)
        for tie in self.ties:
            value = tie.value(counts)
            if abs(value - counts[tie.derived]) > 1e-9:
                raise PlanError(
                    f"group {tie.derived!r} keeps {counts[tie.derived]} units but must keep {value:g}: {tie.reason}. "
                    "Graph.feasible(counts) gives counts that satisfy every tie"
                )

    def counts(self, plan: Plan) -> dict[str, int]:
        """Return how many units every group keeps."""
        return {name: len(plan.keep.get(name, range(size))) for name, size in self.sizes.items()}

    def alive(self, plan: Plan) -> np.ndarray:
        """Return, for every atomic unit of the arena, whether the plan keeps it."""
        alive = np.ones(len(self.partition.group), bool)
        for number, name in enumerate(self.order):
            if name in plan.keep:
                kept = np.zeros(self.sizes[name], bool)
                kept[list(plan.keep[name])] = True
                members = np.nonzero(self.partition.group == number)[0]
                alive[members] = kept[self.partition.rank[members]]
        return alive

    def kept(self, dim: Dim, alive: np.ndarray) -> np.ndarray:
        """Return which positions of a dimension stay."""
        if dim.shape[1] == 0:
            return np.ones(len(dim), bool)
        atoms = self.axes.units.resolve(dim)
        return np.asarray(alive[atoms].all(axis=1)) if atoms.shape[1] else np.ones(len(dim), bool)

    def surgery(self, plan: Plan) -> Surgery:
        """Return what a plan does to the model, as data."""
        self.check(plan)
        alive = self.alive(plan)
        slices: dict[tuple[str, int], Slice] = {}
        for name, dims in self.leaves.items():
            for d, dim in enumerate(dims):
                kept = self.kept(dim, alive)
                if not kept.all():
                    slices[name, d] = Slice(name, d, tuple(np.nonzero(kept)[0].tolist()), len(kept))
        return Surgery(slices, self._attributes(plan))

    def attribute_values(self, plan: Plan) -> dict[tuple, int]:
        """Return every attribute that Python computes sizes from, as it must be after the plan."""
        counts = list(self.counts(plan).values())
        values = dict(self.originals)
        for key, poly in self.solution.attributes.items():
            value = poly.value(counts)
            if value.denominator != 1:
                raise PlanError(f"attribute {key[1]} of {key[0] or 'the model'} would have to be {float(value):g}")
            values[key] = int(value)
        return values

    def _attributes(self, plan: Plan) -> dict[tuple[str, tuple], SetAttribute]:
        new = self.attribute_values(plan)
        return {k: SetAttribute(k[0], k[1], new[k]) for k in self.solution.attributes if new[k] != self.originals[k]}

    # ---- words ------------------------------------------------------------------------------------------------------

    def explain(self, name: str) -> str:
        """Say which groups a module or tensor is in, who else is, and what freezes it.

        Raises:
            UnknownNameError: no tensor of that name was traced.
        """
        known = {*self.shapes, *(n.rpartition(".")[0] for n in self.shapes)}
        if name not in known:
            raise UnknownNameError("module or tensor", name, known)

        def ours(tensor: str) -> bool:
            return tensor == name or tensor.startswith(name + ".")

        lines = [f"{name}:"]
        for group in self.groups.values():
            mine = [s for s in group.slots if ours(s.tensor)]
            if mine:
                where = ", ".join(f"{s.tensor} dim {s.dim} ({s.role})" for s in mine)
                lines.append(f"  {where}: group {group.name}, {group.size} units")
                others = sorted({s.tensor for s in group.slots if not ours(s.tensor)})
                lines.append("    lives with " + (", ".join(others) or "nothing else"))
                lines.extend(f"    size follows {t.reason}" for t in self.ties if t.derived == group.name)
        for item in self.frozen:
            if ours(item.tensor):
                place = f" at {item.source}" if item.source else ""
                lines.append(f"  {item.tensor} dim {item.dim}: {item.positions} frozen: {item.reason}{place}")
        return "\n".join(lines)


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
        ModelError: the model does not run on the example, or has no parameters.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(f"trace takes an nn.Module, not {type(model).__name__}")
    if not any(True for _ in model.parameters()):
        raise ModelError(f"{type(model).__name__} has no parameters: there is nothing to cut")
    with collection_paused():
        return _trace(model, example, forward_fn, free_outputs)


def _trace(model: nn.Module, example: Any, forward_fn: Forward | None, free_outputs: bool) -> Graph:
    records = [capture(model, example, forward_fn, training=False)]
    notes: list[str] = []
    try:
        records.append(capture(model, example, forward_fn, training=True))
    except ModelError as error:
        notes.append(f"the train-mode forward was not recorded, heads that run only in training are unknown: {error}")
    axes = Axes()
    for record in records:
        infer(axes, record, rule_for, free_outputs=free_outputs)
    return _assemble(model, axes, records, notes, example, forward_fn)


def _assemble(
    model: nn.Module, axes: Axes, records: Sequence[Record], notes: list[str], example: Any, forward_fn: Forward | None
) -> Graph:
    touched = {r.names[v] for r in records for op in r.ops for v in op.refs() if v in r.names}
    leaves = {name: dims for name, dims in axes.leaves.items() if name in touched}
    originals = size_values(model)
    rescaled = tuple(find_rescaled(axes, records[0]))
    for one in rescaled:
        source = records[0].ops[one.step].source
        if one.rows is None and one.dim is not None:
            axes.units.freeze(one.dim, Why("attention derives its scale from it, and no weights can make up", source))
    extra = [(r.training, a, b) for r in records for a, b in r.comparisons]
    while True:
        found = partition(axes, leaves)
        solution = solve(axes, found, originals, extra)
        if not solution.refused:
            break
        for groups, why in solution.refused:
            members = np.nonzero(np.isin(found.group, list(groups)))[0].astype(np.int32)
            axes.units.freeze(members[:, None], why)
    for one in rescaled:
        if one.rows is None and one.factor is not None:
            _mark_followers(axes, found, solution, one.factor, Why("Python computes a factor from its size"))
    found, groups, frozen, number = _in_order(axes, leaves, found)
    solution = renumbered(solution, number)
    tensors = named_tensors(model)
    parameters = {id(p) for p in model.parameters()}
    names = [g.name for g in groups]
    ties = tuple(
        Tie(
            names[t.derived],
            {names[g]: p for g, p in t.powers.items()},
            (t.coefficient.numerator, t.coefficient.denominator),
            f"{t.why.reason}{f' at {t.why.source}' if t.why.source else ''}",
        )
        for t in solution.ties
    )
    return Graph(
        groups={g.name: g for g in groups},
        frozen=tuple(frozen),
        ties=ties,
        shapes={n: tuple(t.shape) for n, t in tensors.items()},
        parameters=frozenset(n for n, t in tensors.items() if id(t) in parameters),
        notes=tuple(notes),
        axes=axes,
        partition=found,
        solution=solution,
        records=tuple(records),
        leaves=leaves,
        originals=originals,
        rescaled=rescaled,
        example=example,
        forward_fn=forward_fn,
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
