"""Group Fisher pruning: while the network is trained, remove the unit that the loss would miss least, one at a time.

    g[n, u] = sum over readings x of the unit:  dL_n / dgate_x[u]                    (sum over coupled layers first)
    s[u]    = sum over samples n of  g[n, u] ^ 2  /  what removing u frees           (square after; every_steps steps)

    train ──▶ every few steps: lowest s of the whole network: gate 1 ──▶ 0, sums anew ──▶ ... ──▶ cut physically

Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708, section 3,
algorithms 1 and 2. The paper's variants: ``normalise="memory"`` is -M, "macs" is -F, "none" is -U; ``internal`` is -I.
Differs: (1) groups are the engine's, by union-find over all couplings: a layer that bridges two groups merges them;
(2) a gate acts where a unit is read by a weight; a depthwise convolution passes its unit on and is no reading of its
own, where the paper adds the gradient of its input's mask; (3) besides whole groups of a grouped convolution, one index
in all its groups is a unit too; (4) what a removal frees is the exact difference of the network's cost at the counts of
now; (5) where the stretch is too short for one unit every ``every_steps`` steps, decisions come sooner, and several
units go at one where that does not suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ...core import ModelError, Plan
from ...graph import Graph, Tap, gates, taps
from ...graph.probes.joined import joined
from ..protocol import Context, Stored
from ..registry import HYPERPARAMETERS

# what removing units frees is the difference of this at two sets of counts
_COSTS: dict[str, Callable[[Graph, Mapping[str, int]], int]] = {
    "memory": lambda graph, counts: graph.output_elements(counts),
    "macs": lambda graph, counts: graph.cost(counts).macs,
}


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class GroupFisher:
    """Remove one unit of the whole network every few steps of the optimizer, until the budget is met.

    >>> GroupFisher(every_steps=10).normalise
    'memory'
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()

    every_steps: Annotated[int, Field(ge=1)] = 25
    """steps of the optimizer between two removals; the paper's d: 25 for classification, 10 for detection"""
    normalise: Literal["memory", "macs", "none"] = "memory"
    """what a unit's score is divided by: the output elements that it frees, the MACs, or nothing"""
    internal: bool = False
    """leave units alone that a sum of activations couples, such as a residual stream's"""
    cut_every: Annotated[int, Field(ge=1)] = 64
    """units that are gated to zero between physical cuts"""
    prune_ratio: Annotated[float, Field(gt=0, le=1)] = 0.75
    """share of the stretch after which the budget is met at the latest; the rest recovers"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Open taps and gates on every group that may lose units."""
        state = _State(self, context)
        equal = {name: torch.ones(size) for name, size in graph.sizes.items()}
        plan = context.aim.plan(graph, equal)
        state.expected = sum(graph.sizes[name] - len(units) for name, units in plan.keep.items())
        state.open(model, graph)
        return state

    def penalty(self, state: _State, batch: tuple[Any, Any], outputs: Any) -> float:
        """Add nothing; remember how many samples the loss is a mean of."""
        state.samples = len(batch[1])
        return 0.0

    def step(self, state: _State) -> Plan | None:
        """Add this step's gradients to the sums, and remove a unit where it is time."""
        state.count += 1
        if state.done:
            return None
        state.drain()
        if state.count % state.pace and state.count < state.deadline:
            return None
        state.decide()
        return state.cut() if state.done or state.pending >= self.cut_every else None

    def after_cut(self, state: _State, model: nn.Module, graph: Graph) -> None:
        """Go on with the smaller network."""
        state.open(model, graph)

    def stop(self, state: _State) -> Plan | None:
        """Close taps and gates, and cut what is gated."""
        plan = state.cut()
        return plan

    def stored(self, state: _State) -> Stored:
        """Return the sums, and which units are gated."""
        sums = {f"sums/{name}": total for name, total in state.sums.items()}
        gone = {name: sorted(units) for name, units in state.gone.items()}
        plain = {"count": state.count, "removed": state.removed, "expected": state.expected}
        return {**sums, **plain, "gone": gone, "left_out": state.left_out}

    def resume(self, state: _State, stored: Stored) -> None:
        """Take the sums and the gates back."""
        told: Any = stored
        state.count, state.removed, state.expected = told["count"], told["removed"], told["expected"]
        state.left_out = list(told["left_out"])
        for name in state.sums:
            state.sums[name].copy_(told[f"sums/{name}"])
        for name, units in told["gone"].items():
            state.gate(name, units)


class _State:
    """What changes while the method works.

    Attributes:
        sums: ``{group: sum over samples of squared gate gradients}``, float64.
        gone: ``{group: units that are gated to zero and not cut yet}``.
        count, removed: steps so far, and units.
        expected: units that have to go, about.
        left_out: groups whose readings turned out to be hidden.
        samples: in the batch that is under way.
    """

    def __init__(self, method: GroupFisher, context: Context) -> None:
        self.method, self.context = method, context
        self.goal = context.aim
        self.deadline = max(1, round(method.prune_ratio * context.steps))
        self.count = self.removed = self.expected = self.samples = 0
        self.sums: dict[str, Tensor] = {}
        self.gone: dict[str, set[int]] = {}
        self.left_out: list[str] = []
        self.opened = ExitStack()
        self.taps: Mapping[str, Tap] = {}
        self.done = False

    @property
    def pace(self) -> int:
        """Steps between decisions."""
        return max(1, min(self.method.every_steps, self.deadline // max(self.expected, 1)))

    @property
    def pending(self) -> int:
        """Units that are gated and not cut yet."""
        return sum(map(len, self.gone.values()))

    def open(self, model: nn.Module, graph: Graph) -> None:
        """Watch and gate a network, unless the budget is met."""
        self.graph, self.gone, self.sums = graph, {}, {}
        self.done = self.goal.fits(graph, graph.sizes)
        if self.done:
            return
        self.fewest = self.goal.fewest(graph)
        spared = joined(graph) if self.method.internal else frozenset()
        handle = model.register_forward_pre_hook(lambda *_: self.drain())  # before the taps forget, at each forward
        self.opened.callback(handle.remove)
        free = [name for name, size in graph.sizes.items() if self.fewest[name] < size and name not in spared]
        free = [name for name in free if name not in self.left_out and _tapped(model, graph, name)]
        self.gates = self.opened.enter_context(gates(model, graph, free))
        self.taps = self.opened.enter_context(taps(model, graph, free, gradients=True, read=lambda x: x.new_empty(0)))
        for name, gate in self.gates.items():
            gate.requires_grad_(False)
            self.sums[name] = torch.zeros(graph.sizes[name], dtype=torch.float64, device=gate.device)

    def close(self) -> None:
        """Take taps and gates off."""
        self.opened.close()
        self.opened, self.taps = ExitStack(), {}

    def gate(self, name: str, units: list[int]) -> None:
        """Set units' gates to zero."""
        self.gone.setdefault(name, set()).update(units)
        self.gates[name][units] = 0.0

    def drain(self) -> None:
        """Add the squares of the last backward pass's gate gradients to the sums, if there was one."""
        for name, tap in self.taps.items():
            if name in self.left_out or not tap.ready:
                continue
            try:
                gradients = tap.gradients()
            except ModelError as error:
                self.left_out.append(name)
                self.context.note(f"group_fisher leaves group {name} whole: {error}")
                continue
            # of a mean loss: each sample's own gradient is as many times larger
            whole = gradients.double().reshape(self.samples, -1, gradients.shape[1]).sum(1) * self.samples
            self.sums[name] += whole.square().sum(0)
            tap.clear()

    def decide(self) -> None:
        """Remove the lowest unit of the network; more where the stretch would end before the budget is met."""
        due = math.ceil(self.expected * min(1.0, self.count / self.deadline)) - self.removed
        most = sum(self.graph.sizes.values()) if self.count >= self.deadline else max(1, due)
        sums = {name: self.context.sum_ranks(total.clone()).cpu() for name, total in self.sums.items()}
        for _ in range(most):
            if not self._remove_lowest(sums):
                self.context.note("group_fisher found no further unit that may go")
                break
            self.removed += 1
            self.done = self.goal.fits(self.graph, self.counts())
            if self.done:
                break
        for total in self.sums.values():
            total.zero_()

    def counts(self) -> dict[str, int]:
        """Return how many units each group has left."""
        return {name: size - len(self.gone.get(name, ())) for name, size in self.graph.sizes.items()}

    def _remove_lowest(self, sums: Mapping[str, Tensor]) -> bool:
        """Gate the unit with the lowest normalised score of all groups; return False where none may go."""
        counts, found = self.counts(), []
        for name, own in sums.items():
            if counts[name] <= self.fewest[name] or name in self.left_out:
                continue
            alive = own.clone()
            alive[sorted(self.gone.get(name, ()))] = math.inf
            unit = int(alive.argmin())
            found.append((float(alive[unit]) / self._freed(counts, name), name, unit))
        for _, name, unit in sorted(found):
            fewer = {**counts, name: counts[name] - 1}
            if self.graph.feasible(fewer) == fewer:
                self.gate(name, [unit])
                return True
        return False

    def _freed(self, counts: Mapping[str, int], name: str) -> int:
        """Return what removing one unit of a group frees, at the counts of now."""
        cost = _COSTS.get(self.method.normalise)
        if cost is None:
            return 1
        return max(1, cost(self.graph, counts) - cost(self.graph, {**counts, name: counts[name] - 1}))

    def cut(self) -> Plan | None:
        """Take everything off and return the plan of what is gated."""
        self.close()
        keep = {
            name: tuple(unit for unit in range(self.graph.sizes[name]) if unit not in units)
            for name, units in self.gone.items()
            if units
        }
        self.gone = {}
        return Plan(keep, self.graph.fingerprint) if keep else None


def _tapped(model: nn.Module, graph: Graph, name: str) -> bool:
    """Say whether a group's readings can be watched."""
    try:
        with taps(model, graph, [name]):
            return True
    except ModelError:
        return False
