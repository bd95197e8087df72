"""Scores and plans of a prune step."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ... import criteria
from ...core import Budget, Plan
from ...graph import Graph
from ...selection import plan as choose
from ...selection.tables import Tables
from ..progress import each
from ..state import State
from ..steps import Prune
from ..work import Work


@dataclass(frozen=True)
class Target:
    """Where one cut goes.

    Attributes:
        budget: absolute.
        tables: measured, where the budget has a latency.
        plan: decided already, where the latency was measured in a loop.
    """

    budget: Budget
    tables: Tables | None = None
    plan: Plan | None = None


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


def plan_of(step: Prune, graph: Graph, given: criteria.Scores, target: Target) -> Plan:
    """Choose units by scores, within a budget and the step's wishes.

    Raises:
        BudgetError: no plan is that small.
    """
    return choose(
        graph,
        {name: given[name] for name in graph.groups},
        target.budget,
        strategy=step.strategy,
        round_to=step.round_to,
        keep=step.keep,
        limit=step.limit or None,
        only=step.only,
        floor=step.floor,
        tables=target.tables,
    )
