"""Prune by a method: one stretch of training, in which the method decides what is cut and when."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...core import Budget, BudgetError, Plan
from ...core.run import Point
from ...graph import Graph, trace
from ...methods import Goal, registry
from ...selection.bounds import bounds, wishes
from ...selection.costs import Costs
from ..folders.checkpoints import Handle
from ..steps import Distill, Prune
from ..training.state import State
from ..work import Work
from .distill import answers
from .path import costs
from .planning import Target, plan_of, scores
from .prune import aim_of


def by_method(step: Prune, name: str, work: Work, handle: Handle) -> Handle:
    """Train with the step's method beside the loop, and see that it came to what was asked.

    Raises:
        BudgetError: the method ended above the budget.
    """
    assert step.method is not None and step.finetune is not None
    goal = goal_of(step, name, work)
    objective = answers(Distill(), work) if step.distill else None
    method = (registry.made(step.method, step.options), goal)
    words = f"pruning by {step.method}"
    handle, score = work.learn(f"{name}/method", handle, step.finetune, words, objective=objective, method=method)
    cost = costs(work, name, handle)
    over = [f"{cost_of} {measure} of {limit}" for measure, limit, cost_of in _over(goal, cost)]
    if over and step.max_drop is None:
        raise BudgetError(f"{step.method} ended above its budget: {', '.join(over)}. Give it more epochs")
    if over:
        work.journal.note(
            f"{step.method} ended at {', '.join(over)}: going on would have lost more than max_drop allows"
        )
    work.narrowed(handle)
    work.visit(Point(stage=words, kind="trained", macs=cost.macs, params=cost.params, score=score))
    return handle


def _over(goal: Goal, cost: Any) -> list[tuple[str, int | float, int | float]]:
    known = ((measure, limit, getattr(cost, measure)) for measure, limit in goal.limits.items())
    return [(measure, limit, value) for measure, limit, value in known if value is not None and value > limit]


def goal_of(step: Prune, name: str, work: Work) -> Goal:
    """Return what a step's method is to come to."""
    limits = dict(aim_of(step, name, work).limits)
    whole: dict[str, Any] = limits or {"macs": 1.0}
    budget = Budget(**whole)
    known: list[tuple[Graph, Costs]] = []  # of the graph that was asked about last

    def fits(graph: Graph, counts: Mapping[str, int]) -> bool:
        if not known or known[0][0] is not graph:
            known[:] = [(graph, Costs.of(graph, budget, None))]
        cost = known[0][1].of_counts({name: counts.get(name, size) for name, size in graph.sizes.items()})
        return all(getattr(cost, measure) <= limit for measure, limit in limits.items())

    whole_graph = trace(work.original, work.example)
    wish = wishes(whole_graph, step.keep, step.limit or None, step.only)
    lower = bounds(whole_graph, wish, 1 if step.floor is None else step.floor).lower  # ratios are of the dense network

    def fewest(graph: Graph) -> Mapping[str, int]:
        return {group: min(size, lower.get(group, size)) for group, size in graph.sizes.items()}

    def scored(model: nn.Module, graph: Graph) -> Mapping[str, Tensor]:
        return scores(step, work, State(copy.deepcopy(model)), graph)  # scoring leaves what it is given on the CPU

    def plan(graph: Graph, given: Mapping[str, Tensor]) -> Plan:
        return plan_of(step, graph, dict(given), Target(budget))

    return Goal(limits=limits, max_drop=step.max_drop, fits=fits, fewest=fewest, scores=scored, plan=plan)
