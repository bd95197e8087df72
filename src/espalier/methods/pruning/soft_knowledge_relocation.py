"""Soft Knowledge Relocation: train until the removal of units that any heuristic chose costs nothing; then remove.

    P = lowest units by a heuristic ──▶ gates of P: 1 ──alpha(t)──▶ 0 ──▶ cut P ──▶ train on
                                        loss = w_T L_task + w_R log2(1 + L_reloc / L_reloc(0))

L_reloc(0) is its value when P is removed at once; the logarithm bounds the gradient of a quadratic that a high learning
rate would make diverge.

Source: J. Salzinger, Soft Knowledge Relocation, master thesis, NTUST 2020. Its text is not public. From its abstract,
contents and references come: that the influence of the heuristic is what should be lowered, that a sufficient condition
for this is given and an algorithm built on it, node pruning, tested on I3D, and the tools (information theory,
SVD-entropy, GradNorm, random search, Kendall's tau). Everything else here is our reconstruction: the schedule of gates,
the four losses, the reference values of GradNorm, the hyperparameters and the baseline. The condition we build on:

    if for every heuristic (i) L(theta') <= L_0 + e1 after relocation and (ii) removal then changes L by at most e2,
    the losses after removal differ by at most (L_0 - L_min) + e1 + e2 between heuristics: removal must be harmless.

Differs: all of it may; never take a figure of this method for the thesis's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ...core import ModelError, Plan, Role
from ...graph import Graph, gates
from ...graph.probes.gates import ungated
from ...graph.probes.outputs import logits
from ...graph.recording.running import device_of, own_modes
from ...graph.recording.tensors import named_tensors
from ...recovery import least_squares
from ..grad_norm import balanced, gradient_norm
from ..protocol import Context, Stored
from ..registry import HYPERPARAMETERS
from ..relocation import LOSSES, Relocation, quiet, readings_of, teacher_of

_SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "exponential": lambda done: (math.exp(-5 * done) - math.exp(-5)) / (1 - math.exp(-5)),
}
_HARD_BATCHES = 8  # that the closed form holds with their activations


@dataclass(frozen=True, kw_only=True, config=HYPERPARAMETERS)
class SoftKnowledgeRelocation:
    """Gate the units that a heuristic chose down to nothing while a loss moves what they know to the survivors.

    The stretch of training is T_r + T_ft steps in all: ``relocate_ratio`` of them relocate, the rest fine-tune. With
    ``loss="none"`` the units go at once and all steps fine-tune: the baseline of equal budget.

    >>> SoftKnowledgeRelocation(loss="energy").relocate_ratio
    0.5
    """

    TAKES: ClassVar[frozenset[str]] = frozenset({"criterion", "score_batches", "strategy", "round_to"})
    SEARCH: ClassVar[dict[str, tuple[Any, ...]]] = {
        "loss": ("energy", "reconstruction", "redundancy", "entropy"),
        "relocate_ratio": (0.25, 0.5, 0.75),
        "schedule": ("linear", "cosine", "exponential"),
        "power": (0.1, 0.5, 1.0, 1.5),
    }

    loss: Literal["energy", "reconstruction", "redundancy", "entropy", "hard", "none"] = "reconstruction"
    """R1, R2, R3 or R4 while the gates close; "hard" cuts at once and refits the readers in closed form; "none" cuts
    at once"""
    relocate_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """share of the stretch in which the gates close, T_r"""
    schedule: Literal["linear", "cosine", "exponential"] = "cosine"
    """how they close"""
    power: Annotated[float, Field(ge=0)] = 0.5
    """a of GradNorm, which balances the two losses"""
    balance_lr: Annotated[float, Field(ge=0)] = 0.025
    """step size of GradNorm; 0 leaves both weights at one"""
    balance_steps: Annotated[int, Field(ge=1)] = 10
    """steps of the optimizer between those of GradNorm, each of which costs two backward passes of a part"""
    refit_steps: Annotated[int, Field(ge=1)] = 100
    """of "redundancy": steps between solutions for M"""
    ridge: Annotated[float, Field(gt=0)] = 1e-3
    """of "redundancy": relative to the survivors' energy"""
    rows: Annotated[int, Field(ge=16)] = 2048
    """positions (pixels, samples) of a batch that "redundancy" and "entropy" look at"""
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    """cut sooner, when log2(1 + L_reloc / L_reloc(0)) is below this: 1 as if removed at once; 0 never does"""

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Choose the units by the recipe's criterion, and open their gates."""
        return _State(self, model, graph, context)

    def penalty(self, state: _State, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return (w_T - 1) L_task + w_R log2(1 + L_reloc / L_reloc(0)): the loop adds L_task once."""
        if state.terms is None:
            return 0.0
        return state.penalty(batch, outputs)

    def step(self, state: _State) -> Plan | None:
        """Close the gates a little; cut when they are closed."""
        state.count += 1
        if state.done:
            return None
        if state.terms is not None and state.count < state.steps and not state.harmless():
            state.set_gates()
            return None
        return state.cut()

    def after_cut(self, state: _State, model: nn.Module, graph: Graph) -> None:
        """Refit in closed form, where that is the relocation; the rest is fine-tuning."""
        if state.dense is not None:
            dense, before, plan = state.dense
            try:
                least_squares(dense, model, before, plan, list(state.context.batches(_HARD_BATCHES)))
            except ModelError as error:
                state.context.note(f"soft_knowledge_relocation: the closed form was left out: {error}")
            state.dense = None

    def stop(self, state: _State) -> Plan | None:
        """Take the gates off; cut what was not cut yet."""
        plan = None if state.done else state.cut()
        state.close()
        state.dense = None
        return plan

    def stored(self, state: _State) -> Stored:
        """Return the plan, the weights of the losses, the maps and the teacher."""
        plan = state.plan.to_json()
        plain = {"count": state.count, "done": state.done, "plan": plan, "weights": state.weights}
        tensors: dict[str, Tensor] = {}
        if state.terms is not None:
            tensors = {f"map/{name}": one for name, one in state.terms.maps.items()}
            teacher = state.terms.teacher
            if teacher is not None:
                tensors |= {f"teacher/{name}": one for name, one in named_tensors(teacher).items()}
        return {**tensors, **plain, "reference": state.reference, "first": state.first_task}

    def resume(self, state: _State, stored: Stored) -> None:
        """Go on where ``stored`` was taken."""
        told: Any = stored
        state.close()
        state.count, state.done, state.weights = told["count"], told["done"], told["weights"]
        state.reference, state.first_task = told["reference"], told["first"]
        state.plan = Plan.from_json(told["plan"])
        if not state.done:
            state.open(told)
            state.set_gates()


class _State:
    """What changes while the method works.

    Attributes:
        plan: which units stay; the others are P.
        weights: w_T and w_R.
        reference: the relocation loss when P is removed at once.
        first_task: L_task(0).
        terms: the readings and losses, while gates close.
        dense: what the closed form compares with, between the cut and the refit: network, graph, plan.
    """

    def __init__(self, method: SoftKnowledgeRelocation, model: nn.Module, graph: Graph, context: Context) -> None:
        self.method, self.model, self.graph, self.context = method, model, graph, context
        self.steps = max(1, round(method.relocate_ratio * context.steps))
        self.count, self.done = 0, False
        self.weights, self.reference, self.first_task = [1.0, 1.0], 0.0, 0.0
        self.last: Tensor | None = None
        self.terms: Relocation | None = None
        self.dense: tuple[nn.Module, Graph, Plan] | None = None
        self.opened = ExitStack()
        goal = context.aim
        self.plan = Plan({}) if goal.fits(graph, graph.sizes) else goal.plan(graph, goal.scores(model, graph))
        self.done = not self.plan.keep
        if not self.done:
            self.open({})

    # ---- gates and losses -------------------------------------------------------------------------------------------

    def open(self, told: dict[str, Any]) -> None:
        """Gate the units and watch their readers; ``told`` is what a checkpoint had."""
        if self.method.loss not in LOSSES:
            return
        teacher = teacher_of(self.model, told) if self.method.loss == "reconstruction" else None
        readings = readings_of(self.model, self.graph, self.plan)
        if not readings:
            self.context.note("soft_knowledge_relocation: no layer reads the units by a weight: they are only gated")
        self.terms = Relocation(
            self.model, readings, teacher, self.method.rows, self.method.ridge, self.context.sum_ranks
        )
        device = device_of(self.model)
        self.terms.maps = {k.removeprefix("map/"): t.to(device) for k, t in told.items() if k.startswith("map/")}
        self.gates = self.opened.enter_context(gates(self.model, self.graph, list(self.plan.keep)))
        for gate in self.gates.values():
            gate.requires_grad_(False)
        self.opened.callback(self.terms.watch())
        if not told and readings:
            self._refer()

    def _refer(self) -> None:
        """Measure the relocation loss as it would be if P were removed at once: with closed gates."""
        assert self.terms is not None
        ((inputs, _),) = list(self.context.batches(1))
        inputs = inputs.to(device_of(self.model))
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        if self.method.loss == "reconstruction":
            self._fill_gates(0.0)
        with torch.no_grad(), own_modes(self.model):
            quiet(self.model)
            self.model(inputs)
            self.terms.renew()
            found = LOSSES[self.method.loss](self.terms, inputs, 1.0)
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])
        self._fill_gates(1.0)
        ranks = self.context.sum_ranks(torch.ones_like(found))
        self.reference = max(float(self.context.sum_ranks(found.clone()) / ranks), 1e-6)

    def penalty(self, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return what the relocation adds to the loss."""
        assert self.terms is not None
        if not self.terms.readings:
            return 0.0
        if self.method.loss == "redundancy" and self.count % self.method.refit_steps == 0:
            self.terms.renew()
        task = self.context.loss(outputs, batch[1])
        moved = torch.log2(1 + LOSSES[self.method.loss](self.terms, batch[0], self.alpha) / self.reference)
        self.last = moved.detach()
        if self.method.balance_lr and self.count % self.method.balance_steps == 0:
            self._balance(task, moved, outputs)
        return (self.weights[0] - 1) * task + self.weights[1] * moved

    def _balance(self, task: Tensor, moved: Tensor, outputs: Any) -> None:
        """Move both weights by GradNorm, at the weights that make and read the last group that loses units."""
        last = self.graph.groups[list(self.plan.keep)[-1]]
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        roles = (Role.PRODUCER, Role.READER)
        names = dict.fromkeys(slot.tensor for slot in last.slots if slot.role in roles and slot.tensor in parameters)
        shared = [parameters[name] for name in names if parameters[name].requires_grad]
        with ungated():
            norms = [gradient_norm(loss, shared) for loss in (task, moved)]
        now = torch.tensor(
            [*norms, float(task.detach()), float(moved.detach()), 1.0], dtype=torch.float64, device=task.device
        )
        *values, ranks = self.context.sum_ranks(now).tolist()
        first, second, task_now, moved_now = (value / ranks for value in values)
        if not self.first_task:
            classes = logits(outputs).shape[1]
            self.first_task = math.log(classes) if classes > 1 else max(task_now, 1e-6)
        progress = (task_now / self.first_task, moved_now)  # the latter is relative to its reference already
        self.weights = balanced(
            self.weights, (first, second), progress, power=self.method.power, lr=self.method.balance_lr
        )

    # ---- time -------------------------------------------------------------------------------------------------------

    @property
    def alpha(self) -> float:
        """The gates of P now."""
        return _SCHEDULES[self.method.schedule](min(1.0, self.count / self.steps))

    def set_gates(self) -> None:
        """Set the gates of P to ``alpha``."""
        if self.terms is not None:
            self._fill_gates(self.alpha)

    def _fill_gates(self, value: float) -> None:
        for name, gate in self.gates.items():
            lost = torch.ones(len(gate), dtype=torch.bool, device=gate.device)
            lost[list(self.plan.keep[name])] = False
            gate[lost] = value

    def harmless(self) -> bool:
        """Say whether what P still knows is below the tolerance, on all ranks together."""
        if not self.method.tolerance or self.last is None:
            return False
        ranks = self.context.sum_ranks(torch.ones_like(self.last))
        return float(self.context.sum_ranks(self.last.clone()) / ranks) < self.method.tolerance

    def cut(self) -> Plan:
        """Take the gates off and return the plan."""
        self.close()
        self.done = True
        if self.method.loss == "hard":
            self.dense = (copy.deepcopy(self.model), self.graph, self.plan)
        return Plan(self.plan.keep, self.graph.fingerprint, self.plan.notes)

    def close(self) -> None:
        """Take gates and hooks off."""
        self.opened.close()
        self.opened, self.terms = ExitStack(), None
