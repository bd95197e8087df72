"""Prune: rounds of score, plan, cut and prove, mend, fine-tune: on a schedule to a budget, or in search of a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...core import Budget, BudgetError, Cost, Plan, ProofError
from ...core.run import Point
from ...graph import carry_optimizer, cut, freeze, trace
from ...selection.costs import Costs
from ...selection.tables import Tables
from ..folders.checkpoints import Handle
from ..mending import mended
from ..progress import bar
from ..steps import Distill, Prune
from ..training.state import State
from ..work import Work
from . import latency
from .distill import answers
from .planning import Target, plan_of, scores


def do(step: Prune, name: str, work: Work, handle: Handle) -> Handle:
    """Cut until the budget or the accuracy limit is met."""
    from .method import by_method
    from .search import search

    work.pruned = True
    if step.method is not None:
        return by_method(step, name, work, handle)
    if step.max_drop is not None:
        return search(step, name, work, handle)
    return _scheduled(step, name, work, handle)


def _scheduled(step: Prune, name: str, work: Work, handle: Handle) -> Handle:
    """Cut to the budget in rounds, with recovery and training after each."""
    aim = aim_of(step, name, work)
    cost = aim.dense
    for done in range(1, step.rounds + 1):
        target = Target(round_budget(step, (aim.dense, cost), aim.limits, done), aim.tables)
        key = f"{name}/cut-{done}"
        if done == step.rounds and aim.tables is not None:
            target = replace(target, plan=latency.met(step, key, work, handle, target))
        stage = "cut" if step.rounds == 1 else f"cut {done} of {step.rounds}"
        handle, cost = cut_once(step, key, work, handle, target)
        work.narrowed(handle)
        score = work.score(f"{key}/score", handle)
        work.visit(Point(stage=stage, kind="cut", macs=cost.macs, params=cost.params, score=score))
        if step.finetune is not None and step.finetune.epochs:
            handle, score = trained(step, f"{name}/train-{done}", work, handle, f"fine-tuning after {stage}")
            work.visit(Point(stage=stage, kind="trained", macs=cost.macs, params=cost.params, score=score))
    return handle


@dataclass(frozen=True)
class Aim:
    """Where a prune step goes: what the dense network costs, the absolute limits, and measured tables."""

    dense: Cost
    limits: dict[str, int | float]
    tables: Tables | None


def aim_of(step: Prune, name: str, work: Work) -> Aim:
    """Return what the step's budget comes to for the dense network; tables are measured where it needs them."""
    given = step.budget()
    if not given:
        return Aim(work.dense_cost(), {}, None)
    budget = Budget(**given)
    tables = latency.tables_of(step, name, work)

    def dense() -> dict[str, Any]:
        return vars(Costs.of(trace(work.original, work.example), budget, tables).dense())

    cost = Cost(**work.checkpoints.once(f"{name}/dense", dense))
    return Aim(cost, dict(budget.limits(cost)), tables)


def round_budget(step: Prune, costs: tuple[Cost, Cost], limits: Mapping[str, int | float], done: int) -> Budget:
    """Return the budget of round ``done`` of ``step.rounds``, between the dense network's cost and the limits.

        iterative   limit_round = cost * (limit / cost) ** (1 / rounds left)          an equal factor in each
        cubic       limit_round = limit + (dense - limit) * (1 - done / rounds) ** 3  (Zhu and Gupta, arXiv:1710.01878)

    Args:
        step: the schedule.
        costs: of the dense network, and of the network now.
        limits: absolute, a measure each.
        done: this round's number, from 1.
    """
    dense, now = costs
    left = step.rounds - done + 1
    steps: dict[str, Any] = {}
    for name, limit in limits.items():
        whole, here = getattr(dense, name), getattr(now, name)
        if left == 1:
            steps[name] = limit
            continue
        if step.schedule == "cubic":
            value = limit + max(0, whole - limit) * (1 - done / step.rounds) ** 3
        else:
            value = here * min(1.0, limit / here) ** (1 / left)
        steps[name] = value if name == "latency_ms" else int(value)
    return Budget(**steps)


def trained(step: Prune, key: str, work: Work, handle: Handle, words: str) -> tuple[Handle, float]:
    """Train between cuts, on the dense network's answers too where the step says so; return the metric as well."""
    assert step.finetune is not None
    objective = answers(Distill(), work) if step.distill else None
    return work.learn(key, handle, step.finetune, words, objective=objective)


def cut_once(step: Prune, key: str, work: Work, handle: Handle, target: Target) -> tuple[Handle, Cost]:
    """Score, plan, cut, prove and mend; return the state and what its network costs.

    Raises:
        BudgetError: no plan is that small.
    """
    before = handle
    handle, found = work.checkpoints.change(key, lambda: _cut(step, work, before.open(), target))
    if "refused" in found:
        raise BudgetError(found["refused"])
    for note in found["notes"]:
        work.journal.note(note)
    if found.get("smaller", True):
        work.proved(found["proof"], found["gap"])
    return handle, Cost(**found["cost"])


def _cut(step: Prune, work: Work, state: State, target: Target) -> tuple[State, dict[str, Any]]:
    graph = trace(state.model, work.example)
    given = scores(step, work, state, graph) if target.plan is None else {}
    notes: list[str] = []
    while True:
        try:
            plan = target.plan or plan_of(step, graph, given, target)
            plan = Plan.from_json(work.engine.agreed(plan.to_json())) if work.engine.ranks > 1 else plan
            with bar("cutting and proving"):
                small = cut(state.model, graph, plan, prove=True)
            break
        except BudgetError as error:  # written down as any finding: a resumed run must meet it in the same place
            return state, {"refused": str(error)}
        except ProofError as error:
            if not error.groups or target.plan is not None:
                raise
            reason = f"its cut did not prove itself: {str(error).splitlines()[0]}"
            notes += [f"group {name} stays whole: {reason}" for name in error.groups]
            graph = freeze(graph, error.groups, reason)
    notes += getattr(small, "espalier_notes", ())
    proof = {"proof": small.espalier_proof, "gap": small.espalier_gap}
    optimizer = None if state.optimizer is None else carry_optimizer(state.optimizer, state.model, small)
    notes += mended(step.recover, (state.model, small), plan, work.task, batches=step.recover_batches)
    cost = Costs.of(graph, target.budget, target.tables).of_plan(plan)
    after = State(small, optimizer, state.then(plan), state.epochs)
    smaller = any(len(kept) < graph.sizes[name] for name, kept in plan.keep.items())
    return after, {"cost": vars(cost), "notes": [*plan.notes, *notes], "smaller": smaller, **proof}
