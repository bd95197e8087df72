"""Scores and plans of a prune step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ... import criteria
from ...core import Budget, Plan
from ...engines.engine import placed
from ...graph import Graph
from ...selection import plan as choose
from ...selection.tables import Tables
from ..progress import each
from ..steps import Prune
from ..training.state import State
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
    if criteria.reads_data(step.criterion):
        return _from_batches(step, work, state, graph)
    if step.criterion.removeprefix(criteria.REVERSED) == "random":
        return criterion(state.model, graph, seed=work.recipe.seed)
    return criterion(state.model, graph)


def _from_batches(step: Prune, work: Work, state: State, graph: Graph) -> criteria.Scores:
    """Score from training batches, of which each rank reads its part: together they count as one process's."""
    data, engine = work.part.train, work.engine
    data.epoch = state.epochs
    total = min(step.score_batches, len(data))
    weight: Tensor | float = 1.0

    def batches() -> Iterator[tuple[Any, Any]]:
        nonlocal weight
        for inputs, targets in each(itertools.islice(data, total), "scoring", total):
            weight = engine.weight(len(targets)) if engine.ranks > 1 else 1.0
            yield inputs, targets

    def loss(outputs: Any, targets: Any) -> Tensor:
        return work.task.loss(outputs, targets) * weight

    with placed(engine.device, state.model):
        found = criteria.named(step.criterion)(state.model, graph, batches=batches(), loss=loss)
    return {name: one.cpu() for name, one in found.items()}


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
