"""C2S2: cost-aware channel sparse selection: layer by layer, learn a mask, binarise, recover; keep it if it is cheap.

    for each layer:  p <- 1
        phase 1   weights held:  min over p in [0, 1]  L_task(y_c = p_c x_c) + lambda sum |p_c| + mu sum p_c (1 - p_c)
        binarise  b_c = 1[p_c >= tau];  what is kept folds its p_c into the next layer;  channels with b_c = 0 are cut
        phase 2   train the weights
        control   validation within the layer's allowance?  accept, raise lambda  :  go back, lower lambda

Source: Chiu, Chen and Liu, C2S2: Cost-aware Channel Sparse Selection for Progressive Network Pruning, 2019,
arXiv:1904.03508, and the thesis behind it. Only their abstracts were at hand. They give: pruning layers of 1x1
depth-wise kernels in two formats, real and binary, on a pre-trained network; an end-to-end two-phase optimisation;
progress layer by layer; a criterion that favours sparsity; a mechanism that learns each layer's rate and keeps the
performance. The losses, the threshold, the controller and all defaults are our reconstruction.
Differs: (1) a pruning layer multiplies where its units are read, behind norm and activation, which is a 1x1 depth-wise
kernel there; (2) a layer's allowance is the total drop times the share of the removable MACs up to and with it, so that
what one layer does not use the next ones may; (3) p moves as fast as lambda asks, so that lambda alone decides: a
channel closes where the loss resists its closing by less than lambda; (4) a layer begins with the last lambda accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ...core import ModelError, Plan
from ...graph import Graph, gates
from ...graph.probes.gates import fold_gates_
from ...graph.probes.joined import joined
from ..cost_control import Trial, allowances, told, weaker
from ..protocol import Context, Restore, Snapshot, Stored
from ..pruning_layer import PruningLayer
from ..registry import HYPERPARAMETERS

# what a checkpoint keeps of the state, as it is
_PLAIN = ("count", "spent", "phase", "number", "trial", "strength", "accepted", "reference", "floors", "names")
_PLAIN += ("select_steps", "recover_steps", "width")


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class C2S2:
    """Give each layer in turn a pruning layer, and prune it as far as validation allows.

    The stretch's steps are shared out evenly: ``trials`` for each layer. With a budget the layers end where it is met;
    what they leave above it goes by the recipe's criterion. With ``max_drop`` alone the method stops when all layers
    have had their turn.

    >>> C2S2(trials=2).threshold
    0.5
    """

    TAKES: ClassVar[frozenset[str]] = frozenset({"max_drop", "criterion", "score_batches", "strategy"})

    trials: Annotated[int, Field(ge=1)] = 3
    """selections a layer, each with another lambda"""
    select_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """share of a trial in which the mask is learned and weights are held; the rest recovers"""
    format: Literal["real", "binary"] = "real"
    """what the network sees while the mask is learned; "binary" takes its gradients straight through to p"""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """tau"""
    lr: Annotated[float, Field(gt=0)] | None = None
    """of p, by SGD; when not given, what closes a channel that the loss does not need in half of phase 1"""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """of p"""
    strength: Annotated[float, Field(gt=0)] = 0.01
    """lambda of the first layer's first trial; the next layers begin with the last one that was accepted"""
    gap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """mu / lambda: how strongly p is drawn to 0 or 1"""
    drop: Annotated[float, Field(ge=0)] = 1.0
    """points of validation that all layers together may lose where the step gives no ``max_drop``"""
    internal: bool = True
    """leave channels alone that a sum of activations couples; False gives them one shared mask"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Measure the dense network, share out its allowance, and begin with the first layer."""
        return _State(self, model, graph, context)

    def penalty(self, state: _State, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return the sparsity terms of the layer whose mask is learned."""
        if state.layer is None:
            return 0.0
        p = state.layer.real
        return state.strength * (p.sum() + self.gap * (p * (1 - p)).sum())

    def step(self, state: _State) -> Plan | Restore | None:
        """Move the mask, or count the recovery; decide when a phase is over."""
        state.count += 1
        state.spent += 1
        if state.phase == "select":
            assert state.layer is not None
            state.layer.step(self.lr or state.closing_lr(), self.momentum, state.context.sum_ranks)
            if state.spent >= state.select_steps:
                return state.binarise()
        elif state.phase == "recover" and (state.spent >= state.recover_steps or state.count >= state.context.steps):
            return state.judge()
        return None

    def after_cut(self, state: _State, model: nn.Module, graph: Graph) -> None:
        """Recover after a cut, or try the layer once more after a return."""
        state.model, state.graph = model, graph
        if state.phase == "returned":
            state.next_trial()

    def stop(self, state: _State) -> Plan | None:
        """Take the pruning layer off; what is above the budget goes by the recipe's criterion."""
        state.close()
        return state.rest()

    def stored(self, state: _State) -> Stored:
        """Return where the sequence is, the mask, and the network to go back to."""
        kept: dict[str, Any] = {name: getattr(state, name) for name in _PLAIN}
        kept["log"] = [asdict(one) for one in state.log]
        if state.layer is not None:
            kept |= {"p": state.layer.real.detach(), "velocity": state.layer.velocity}
        return kept | ({} if state.before is None else {"before": state.before})

    def resume(self, state: _State, stored: Stored) -> None:
        """Go on where ``stored`` was taken."""
        kept: Any = stored
        state.close()
        for name in _PLAIN:
            setattr(state, name, kept[name])
        state.log = [Trial(**one) for one in kept["log"]]
        state.before = kept.get("before")
        if state.phase == "select":
            state.open(kept)


class _State:
    """What changes while the method works.

    Attributes:
        names: layers in the order of their turns, by group.
        floors: ``names``' lowest validation metrics that are accepted.
        phase: select, recover, returned (a cut was undone), or done.
        number, trial: of the layer under way, from 0.
        strength, accepted: lambda now, and the last that was accepted for this layer (0 where none was).
        before, width: the network that a rejected cut goes back to, and the layer's channels in it.
    """

    def __init__(self, method: C2S2, model: nn.Module, graph: Graph, context: Context) -> None:
        self.method, self.model, self.graph, self.context, self.goal = method, model, graph, context, context.aim
        self.count = self.spent = self.number = self.trial = 0
        self.log: list[Trial] = []
        self.before: Snapshot | None = None
        self.layer: PruningLayer | None = None
        self.opened = ExitStack()
        self.accepted = self.strength = 0.0
        self.width = 0
        self.reference = context.evaluate(model)
        spared = joined(graph) if method.internal else frozenset()
        fewest = self.goal.fewest(graph)
        free = [name for name, size in graph.sizes.items() if fewest[name] < size and name not in spared]
        self.names = [name for name in free if _gated(model, graph, name)]
        allowed = method.drop if self.goal.max_drop is None else self.goal.max_drop
        self.floors = allowances(graph, {name: fewest[name] for name in self.names}, self.reference, allowed / 100)
        each = max(2, context.steps // max(1, len(self.names) * method.trials))
        self.select_steps = min(each - 1, max(1, round(method.select_ratio * each)))
        self.recover_steps = each - self.select_steps
        self.phase = "done" if not self.names or self._met() else "select"
        if self.phase == "select":
            self.begin_layer()

    def _met(self) -> bool:
        return bool(self.goal.limits) and self.goal.fits(self.graph, self.graph.sizes)

    # ---- the sequence -----------------------------------------------------------------------------------------------

    def begin_layer(self) -> None:
        """Give the layer under way its first trial."""
        good = [one.strength for one in self.log if one.accepted]
        self.trial, self.accepted = 0, 0.0
        self.strength = good[-1] if good else self.strength or self.method.strength
        self.open({})

    def closing_lr(self) -> float:
        """Return the step size by which a channel that the loss does not need goes from 1 to 0 in half of phase 1."""
        m, steps = self.method.momentum, max(1, self.select_steps // 2)
        travel = sum((1 - m**j) / (1 - m) for j in range(1, steps + 1))
        return 1.0 / (travel * self.strength * (1 - self.method.gap))

    def open(self, stored: Mapping[str, Any]) -> None:
        """Insert the pruning layer and hold the weights; ``stored`` is what a checkpoint had."""
        name = self.names[self.number]
        made = self.opened.enter_context(gates(self.model, self.graph, [name]))
        self.layer, self.phase = PruningLayer(made[name], self.method.threshold, self.method.format), "select"
        if stored:
            with torch.no_grad():
                self.layer.real.copy_(stored["p"])
            self.layer.velocity.copy_(stored["velocity"])
            self.layer.show()
        else:
            self.spent = 0
        self.context.hold(True)

    def close(self) -> None:
        """Take the pruning layer off, and let the weights move."""
        self.opened.close()
        self.opened, self.layer = ExitStack(), None
        self.context.hold(False)

    def binarise(self) -> Plan | None:
        """End phase 1: cut the channels whose mask is 0; where none is, the next trial is stronger."""
        assert self.layer is not None
        name, real = self.names[self.number], self.layer.real.detach().clone()
        kept = self._kept(name, real)
        self.close()
        if len(kept) == self.graph.sizes[name]:
            self.width = len(kept)
            self._record(len(kept), 0.0, True)
            self.accepted, self.strength = self.strength, 2 * self.strength
            return self.next_trial()
        self.before, self.width = self.context.snapshot(), self.graph.sizes[name]
        if self.method.format == "real":
            fold_gates_(self.model, self.graph, {name: real})
        self.phase, self.spent = "recover", 0
        return Plan({name: tuple(kept)}, self.graph.fingerprint)

    def _kept(self, name: str, real: Tensor) -> list[int]:
        """Return the channels to keep: those of the mask, no fewer than asked for, and none cut beyond the budget."""
        order = real.argsort(stable=True).tolist()  # the least first
        least = self.goal.fewest(self.graph)[name]
        lost = [unit for unit in order if float(real[unit]) < self.method.threshold][: len(order) - least]
        for count in range(len(lost) if self.goal.limits else 0):
            if self.goal.fits(self.graph, {**self.graph.sizes, name: len(order) - count}):
                lost = lost[:count]
                break
        wanted = {**self.graph.sizes, name: len(order) - len(lost)}
        while lost and self.graph.feasible(wanted) != wanted:
            lost.pop()
            wanted[name] += 1
        return sorted(set(range(len(order))) - set(lost))

    def judge(self) -> Restore | None:
        """End phase 2: accept the smaller layer, or go back to what was before it."""
        score, name = self.context.evaluate(self.model), self.names[self.number]
        drop, good = 100 * (self.reference - score), score >= self.floors[self.number]
        self._record(self.graph.sizes.get(name, 1), drop, good)
        before, self.before = self.before, None
        if good:
            self.accepted, self.strength = self.strength, 2 * self.strength
            self.next_trial()
            return None
        self.strength = weaker(self.strength, self.accepted)
        self.phase = "returned"
        assert before is not None
        return Restore(before)

    def next_trial(self) -> None:
        """Go on with this layer, or the next one, or end."""
        self.trial += 1
        alone = self.names[self.number] not in self.graph.groups  # one channel is left
        over = alone or self.trial >= self.method.trials
        if self._met() or (over and self.number + 1 >= len(self.names)):
            self._tell()
            self.phase = "done"
        elif over:
            self._tell()
            self.number += 1
            self.begin_layer()
        else:
            self.open({})

    def rest(self) -> Plan | None:
        """Return what has to go beyond the layers' own selections for the budget to be met."""
        if not self.goal.limits or self.goal.max_drop is not None or self._met():
            return None
        self.context.note(
            "c2s2: its selections within the allowed drop end above the budget; the rest was cut by the criterion"
        )
        return self.goal.plan(self.graph, self.goal.scores(self.model, self.graph))

    # ---- the record -------------------------------------------------------------------------------------------------

    def _record(self, after: int, drop: float, accepted: bool) -> None:
        name = self.names[self.number]
        self.log.append(Trial(name, self.strength, self.width, after, drop, accepted))

    def _tell(self) -> None:
        """Say of a layer what was tried and what it came to: the table of the paper's appendices, a line a layer."""
        name = self.names[self.number]
        self.context.note(f"c2s2: {told(name, self.graph.sizes.get(name, 1), self.log)}")


def _gated(model: nn.Module, graph: Graph, name: str) -> bool:
    """Say whether a group can be given a pruning layer."""
    try:
        with gates(model, graph, [name]):
            return True
    except ModelError:
        return False
