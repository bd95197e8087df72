"""The graph: which channels live and die together, what is frozen and why, what a plan costs and does."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from ..core import Cost, Frozen, Group, Plan, PlanError, SetAttribute, Slice, Surgery, Tie, UnknownNameError
from .axes.conditions import Condition
from .axes.feasible import Limits
from .axes.groups import Partition
from .axes.inference import Axes, Dims
from .axes.ties import Solution
from .axes.units import Dim
from .cost import CostModel, compile_cost
from .explain import explain
from .recording.capture import Forward
from .recording.record import Record
from .recording.sizes import leaves
from .rescale import Rescaled


@dataclass(eq=False, repr=False, kw_only=True)
class Traced:
    """What was recorded of a model.

    Attributes:
        shapes: ``{tensor name: shape}`` of every parameter, buffer and plain tensor attribute.
        parameters: the names of those that are parameters.
        originals: ``{(module, path): value}`` of every public int attribute.
        records: the eval and the train forward.
        notes: what the user should know (for instance that the train-mode forward could not be recorded).
        example, forward_fn, free_outputs: what ``trace`` was given.
        skeleton: the model without its data.
    """

    shapes: dict[str, tuple[int, ...]]
    parameters: frozenset[str]
    originals: dict[tuple, int]
    records: tuple[Record, ...]
    notes: tuple[str, ...]
    example: Any
    forward_fn: Forward | None
    free_outputs: bool
    skeleton: nn.Module


@dataclass(eq=False, repr=False, kw_only=True)
class Graph(Traced):
    """What ``trace`` found.

    Attributes:
        groups: ``{name: group}`` of everything that can be cut, in the order the network uses it.
        frozen: what must not change, with reasons.
        ties: equations between group sizes.
        conditions: comparisons of sizes in the model's Python that planning leaves as they came out.
        losses: sizes that the model's Python made bare numbers; what a cut changes there is for the proof to see.
        axes, partition, solution, leaves, rescaled: the engine's own.
    """

    groups: dict[str, Group]
    frozen: tuple[Frozen, ...]
    ties: tuple[Tie, ...]
    conditions: tuple[Condition, ...]
    losses: tuple[Condition, ...]
    axes: Axes
    partition: Partition
    solution: Solution
    leaves: dict[str, Dims]
    rescaled: tuple[Rescaled, ...]

    def __repr__(self) -> str:
        return (
            f"Graph({len(self.groups)} groups, {len(self.ties)} ties, {len(self.frozen)} frozen axes, "
            f"{self.prunable_share:.1%} of the parameters prunable)"
        )

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
        expressions += [side for r in self.records for key in r.heard.compared for side in key[1:3]]
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

    def output_elements(self, counts: Mapping[str, int] | None = None) -> int:
        """Return the elements that convolutions and matrix products put out at batch 1, as ``cost`` counts them.

        This is what papers on activations and memory count: not a peak, and not what norms and activations keep.
        """
        counts = counts or {}
        return self._cost_model.output_elements([counts.get(name, size) for name, size in self.sizes.items()])

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

        Where the model's Python compares sizes, groups keep more, until every comparison comes out as it did. Groups in
        ``held`` keep their given counts where the ties allow.
        """
        sizes = list(self.sizes.values())
        wanted = [min(max(int(counts.get(n, s)), 1), s) for n, s in self.sizes.items()]
        fixed = {g for g, name in enumerate(self.order) if name in set(held)} if held else set()
        limits = Limits(sizes, self.solution.ties, self.multiples, self.conditions)
        result = limits.feasible(wanted, fixed)
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

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Atomic units that belong to groups, and where each is in the concatenation of all groups' units."""
        starts = np.concatenate([[0], np.cumsum(self.partition.sizes, dtype=np.int64)])
        members = np.nonzero(self.partition.group >= 0)[0]
        return members, starts[self.partition.group[members]] + self.partition.rank[members]

    def alive(self, plan: Plan) -> np.ndarray:
        """Return, for every atomic unit of the arena, whether the plan keeps it."""
        kept = [np.ones(size, bool) for size in self.sizes.values()]
        for units, name in zip(kept, self.order, strict=True):
            if name in plan.keep:
                units[:] = False
                units[list(plan.keep[name])] = True
        alive = np.ones(len(self.partition.group), bool)
        if kept:
            members, places = self._places
            alive[members] = np.concatenate(kept)[places]
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
        same: dict[bytes, tuple[int, ...]] = {}  # dimensions of one group share their kept positions
        for name, dims in self.leaves.items():
            for d, dim in enumerate(dims):
                kept = self.kept(dim, alive)
                if not kept.all():
                    key = kept.tobytes()
                    if key not in same:
                        same[key] = tuple(np.nonzero(kept)[0].tolist())
                    slices[name, d] = Slice(name, d, same[key], len(kept))
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
        """Say which groups a module, a container of modules, a tensor or a group is, who else is, and what freezes it.

        Raises:
            UnknownNameError: nothing of that name was traced; the message has the nearest name.
        """
        return explain(self, name)
