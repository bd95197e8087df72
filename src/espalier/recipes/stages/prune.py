"""Prune: rounds of score, plan, cut and prove, mend, fine-tune: on a schedule to a budget, or in search of a limit."""

from __future__ import annotations

import itertools
from typing import Any

from ... import criteria
from ...core import Budget, BudgetError, Cost, Plan, ProofError
from ...core.run import Point
from ...graph import Graph, carry_optimizer, cut, freeze, trace
from ...selection import plan as choose
from ..checkpoints import Handle
from ..mending import mended
from ..progress import bar, each
from ..state import State
from ..steps import Prune
from ..work import Work


def do(step: Prune, name: str, work: Work, handle: Handle) -> Handle:
    """Cut until the budget or the accuracy limit is met."""
    from .search import search

    work.pruned = True
    if step.max_drop is not None:
        return search(step, name, work, handle)
    return _scheduled(step, name, work, handle)


def _scheduled(step: Prune, name: str, work: Work, handle: Handle) -> Handle:
    """Cut to the budget in rounds, with recovery and training after each."""
    dense = work.dense_cost()
    limits = dict(Budget(**step.budget()).limits(dense))
    cost = dense
    for done in range(1, step.rounds + 1):
        budget = round_budget(step, (dense, cost), limits, done)
        key = f"{name}/cut-{done}"
        stage = "cut" if step.rounds == 1 else f"cut {done} of {step.rounds}"
        handle, cost = cut_once(step, key, work, handle, budget)
        work.narrowed(handle)
        score = work.score(f"{key}/score", handle)
        work.visit(Point(stage=stage, kind="cut", macs=cost.macs, params=cost.params, score=score))
        if step.finetune is not None and step.finetune.epochs:
            handle, score = work.learn(f"{name}/train-{done}", handle, step.finetune, f"fine-tuning after {stage}")
            work.visit(Point(stage=stage, kind="trained", macs=cost.macs, params=cost.params, score=score))
    return handle


def round_budget(step: Prune, costs: tuple[Cost, Cost], limits: dict[str, int], done: int) -> Budget:
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
    steps: dict[str, int] = {}
    for name, limit in limits.items():
        whole, here = getattr(dense, name), getattr(now, name)
        if left == 1:
            steps[name] = limit
        elif step.schedule == "cubic":
            steps[name] = int(limit + max(0, whole - limit) * (1 - done / step.rounds) ** 3)
        else:
            steps[name] = int(here * min(1.0, limit / here) ** (1 / left))
    return Budget(**steps)


def cut_once(step: Prune, key: str, work: Work, handle: Handle, budget: Budget) -> tuple[Handle, Cost]:
    """Score, plan, cut, prove and mend; return the state and what its network costs.

    Raises:
        BudgetError: no plan is that small.
    """
    before = handle
    handle, found = work.checkpoints.change(key, lambda: _cut(step, work, before.open(), budget))
    if "refused" in found:
        raise BudgetError(found["refused"])
    for note in found["notes"]:
        work.journal.note(note)
    work.journal.update(proof=_proof(work, found["proof"]))
    return handle, Cost(**found["cost"])


def _cut(step: Prune, work: Work, state: State, budget: Budget) -> tuple[State, dict[str, Any]]:
    graph = trace(state.model, work.example)
    given = scores(step, work, state, graph)
    notes: list[str] = []
    while True:
        try:
            plan = plan_of(step, graph, {name: given[name] for name in graph.groups}, budget)
            with bar("cutting and proving"):
                small = cut(state.model, graph, plan, prove=True)
            break
        except BudgetError as error:  # written down as any finding: a resumed run must meet it in the same place
            return state, {"refused": str(error)}
        except ProofError as error:
            if not error.groups:
                raise
            reason = f"its cut did not prove itself: {str(error).splitlines()[0]}"
            notes += [f"group {name} stays whole: {reason}" for name in error.groups]
            graph = freeze(graph, error.groups, reason)
    proof = str(small.espalier_proof)
    notes += getattr(small, "espalier_notes", ())
    optimizer = None if state.optimizer is None else carry_optimizer(state.optimizer, state.model, small)
    notes += mended(step.recover, (state.model, small), plan, work.task, batches=step.recover_batches)
    after = State(small, optimizer, state.then(plan), state.epochs)
    return after, {"cost": vars(graph.plan_cost(plan)), "notes": [*plan.notes, *notes], "proof": proof}


def _proof(work: Work, kind: str) -> str:
    """Return the run's words about its proofs with one more."""
    before, _, _ = work.journal.run.proof.partition(" ")
    count = int(before) + 1 if before.isdigit() else 1
    return f"{count} {'cut' if count == 1 else 'cuts'} proved in {kind}: cut equals masked"


def scores(step: Prune, work: Work, state: State, graph: Graph) -> criteria.Scores:
    """Score every unit by the step's criterion; training batches in the order of the state's epoch."""
    criterion = criteria.named(step.criterion)
    if step.criterion in criteria.DATA_DRIVEN:
        work.task.train.epoch = state.epochs
        total = min(step.score_batches, len(work.task.train))
        batches = each(itertools.islice(work.task.train, total), "scoring", total)
        return criterion(state.model, graph, batches=batches, loss=work.task.loss)
    if step.criterion == "random":
        return criterion(state.model, graph, seed=work.recipe.seed)
    return criterion(state.model, graph)


def plan_of(step: Prune, graph: Graph, given: criteria.Scores, budget: Budget) -> Plan:
    """Choose units by scores, within a budget and the step's wishes."""
    return choose(
        graph,
        given,
        budget,
        strategy=step.strategy,
        round_to=step.round_to,
        keep=step.keep,
        limit=step.limit or None,
        only=step.only,
        floor=step.floor,
    )
