"""Planning: scores and a budget in, a plan out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..core import Budget, BudgetError, Cost, KindError, Plan, PlanError, UnknownNameError
from .bounds import Floor, Wishes, bounds, wishes
from .costs import Costs
from .lattice import Lattice
from .refusal import number, refusal
from .search import Target, search
from .staircase import BLOCKS
from .strategies import STRATEGIES, Strategy, ranked
from .tables import Tables

if TYPE_CHECKING:
    from ..graph import Graph

# Tried in turn when the user gives no floor: a layer that one threshold empties seldom recovers.
_DEFAULT_FLOORS: dict[str, tuple[Floor, ...]] = {"uniform": (1,)}
_COLLAPSE_FLOORS: tuple[Floor, ...] = (0.1, 0.05, 0.02, 0.01, 1)
_ATTEMPTS = 24  # at a plan whose exact cost fits; the first nearly always does


def plan(  # noqa: PLR0913 - each is one wish of the user's; an options object would only hide them
    graph: Graph,
    scores: Mapping[str, Any],
    budget: Budget,
    *,
    strategy: str = "global",
    round_to: int | None = None,
    keep: Collection[str] = (),
    limit: Mapping[str, float] | None = None,
    only: Collection[str] | None = None,
    floor: Floor | None = None,
    tables: Tables | None = None,
) -> Plan:
    """Choose which units each group keeps so that the network costs no more than the budget.

    The plan lands within 1 % below the budget (the one that binds, where there are several), or at the largest plan
    that was found below it, with a note.

        scores --strategy--> a pruning level a unit --search--> counts --best units by score--> plan

    Patterns are ``fnmatch`` patterns on group names and tensor names; a module's name means all its tensors.

    Args:
        graph: from ``trace``.
        scores: ``{group: one number a unit}``, higher is worth more; from a criterion, or your own.
        budget: what the result may cost.
        strategy: "global" (one threshold over all scores), "uniform" (the same ratio of every group) or "isomorphic"
            (one threshold among groups of the same shape).
        round_to: counts are the nearest multiples of it, at least one; a group smaller than that stays whole. By
            default 1; under a budget of milliseconds the one of 16, 8 and 1 that preserves most, by the tables.
        keep: groups that touch these names keep all their units.
        limit: ``{pattern: largest ratio of its units that a group may lose}``.
        only: prune only groups that these names own (produce, scale or shift, not merely read).
        floor: fewest units a group keeps: an int is a number of units, a float a ratio. By default one unit for
            "uniform"; for the others 0.1 of the group, or less with a note where the budget cannot be reached so.
        tables: measured times of the network's layers; a budget of milliseconds needs them.

    Raises:
        BudgetError: no plan reaches the budget; says what is frozen and the smallest reachable cost.
        TablesError: the tables are of another network.
        PlanError: scores do not fit the groups, or an option is out of range.
        UnknownNameError: an unknown strategy, a score of an unknown group, or a pattern that matches nothing.
    """
    if not hasattr(graph, "groups") or not isinstance(scores, Mapping):
        raise KindError(
            f"plan takes a graph and scores by group, not {type(graph).__name__} and {type(scores).__name__}: "
            "es.trace(model, example) makes the one, a criterion such as es.criteria.magnitude(model, graph) the others"
        )
    if strategy not in STRATEGIES:
        raise UnknownNameError("strategy", strategy, STRATEGIES)
    if round_to is not None and (isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1):
        raise PlanError(f"round_to={round_to!r}: give a whole number of units, at least 1")
    wish = wishes(graph, keep, limit, only)
    values = _checked(graph, scores, wish)
    if not isinstance(budget, Budget):
        raise BudgetError(f"the budget is a {type(budget).__name__}: write es.Budget(macs=0.5)")
    costs = Costs.of(graph, budget, tables)
    limits = Target(costs.limits(budget))
    if limits.fits(costs.dense()):
        return Plan({}, graph.fingerprint, ("the network is already within the budget: nothing is cut",), graph.sizes)
    asked = {
        "keep": keep,
        "limit": limit,
        "only": only is not None,
        "floor": floor is not None,
        "round_to": (round_to or 1) > 1,
    }
    floors = (floor,) if floor is not None else _DEFAULT_FLOORS.get(strategy, _COLLAPSE_FLOORS)
    problem = Problem(costs, limits, values, wish, floors, STRATEGIES[strategy])
    result = _best(problem, _multiples(round_to, limits), [name for name, given in asked.items() if given])
    graph.check(result)
    return result


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be planned.

    Attributes:
        costs, limits: what counts cost, and may cost.
        values: checked scores.
        wish: the user's patterns.
        floors: to try in turn.
        strategy: gives levels.
    """

    costs: Costs
    limits: Target
    values: Mapping[str, np.ndarray]
    wish: Wishes
    floors: tuple[Floor, ...]
    strategy: Strategy


def _multiples(round_to: int | None, limits: Target) -> tuple[int, ...]:
    if round_to is not None:
        return (round_to,)
    return BLOCKS if "latency_ms" in limits.limits else (1,)


def _best(problem: Problem, multiples: Sequence[int], asked: list[str]) -> Plan:
    """Return the plan of the multiple that preserves most; the first of those that preserve equally much."""
    found: list[tuple[float, Plan]] = []
    refused: BudgetError | None = None
    for multiple in multiples:
        try:
            found.append(_planned(problem, multiple, asked))
        except BudgetError as error:
            refused = error
    if not found:
        assert refused is not None
        raise refused
    return max(found, key=lambda one: one[0])[1]


def _planned(problem: Problem, multiple: int, asked: list[str]) -> tuple[float, Plan]:
    """Return what a plan with these multiples preserves, the sum of its units' levels, and the plan."""
    lattice, notes = _reachable(problem, multiple, asked)
    values, graph = problem.values, lattice.graph
    movers = {name: values[name] for name, moves in zip(lattice.names, lattice.moving, strict=True) if moves}
    levels = problem.strategy(graph, movers)
    found, cost = _fitted(lattice, levels, values, problem.limits)
    notes += _landing(lattice, found, cost, problem.limits)
    preserved = sum(float(own[list(found.keep.get(n, range(len(own))))].sum()) for n, own in levels.items())
    return preserved, Plan(found.keep, graph.fingerprint, tuple(notes), graph.sizes)


def _checked(graph: Graph, scores: Mapping[str, Any], wish: Wishes) -> dict[str, np.ndarray]:
    """Return scores as float64 arrays, checked against the groups."""
    for name in scores:
        if name not in graph.groups:
            raise UnknownNameError("group in scores", name, graph.groups)
    missing = [name for name in graph.groups if name not in scores and name not in wish.held]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise PlanError(f"no score for group {', '.join(map(repr, missing[:3]))}{more}; score every group, or keep it")
    return {name: _numbers(name, graph.groups[name].size, given) for name, given in scores.items()}


def _numbers(name: str, size: int, given: Any) -> np.ndarray:
    """Return one group's scores, or say what is wrong with them."""
    if isinstance(given, Tensor):
        if given.is_meta:
            raise PlanError(f"scores of group {name!r} are on the meta device and have no values")
        given = given.detach().cpu().double().numpy()
    numbers = np.asarray(given, dtype=np.float64)
    if numbers.shape != (size,):
        raise PlanError(f"scores of group {name!r} have shape {numbers.shape}; it has {size} units: give ({size},)")
    if np.isnan(numbers).any():
        raise PlanError(f"scores of group {name!r} hold NaN (unit {int(np.isnan(numbers).argmax())} first)")
    return numbers


def _reachable(problem: Problem, multiple: int, asked: list[str]) -> tuple[Lattice, list[str]]:
    """Return the lattice of the first floor under which the budget can be reached, and what to tell the user.

    ``asked`` names the options that the user gave, for the refusal.
    """
    costs, floors, cost = problem.costs, problem.floors, problem.costs.dense()
    for floor in floors:
        lattice = Lattice(costs.graph, bounds(costs.graph, problem.wish, floor), multiple, costs)
        cost = lattice.cost(lattice.smallest())
        if problem.limits.fits(cost):
            lowered = f"the default floor of {floors[0]} of a group was lowered to {floor} to reach the budget"
            return lattice, [lowered] if floor != floors[0] else []
    free = Lattice(costs.graph, bounds(costs.graph, Wishes(frozenset(), {}), 1), 1, costs)
    raise refusal(costs, problem.limits.limits, cost, free.cost(free.smallest()), asked)


def _fitted(
    lattice: Lattice, levels: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray], limits: Target
) -> tuple[Plan, Cost]:
    """Return the largest plan found whose exact cost fits.

    The search counts units; which units go can matter too (units of unequal width), so the exact cost of the chosen
    ones decides, and the target moves by the difference.
    """
    costs = lattice.costs or Costs(lattice.graph)
    best: tuple[Plan, Cost] | None = None
    target = limits
    for _ in range(_ATTEMPTS):
        counts = search(lattice, levels, target)
        candidate = _chosen(lattice, counts, values)
        exact, quick = costs.of_plan(candidate), lattice.cost(counts)
        if limits.fits(exact):
            if best is None or limits.fullness(exact) > limits.fullness(best[1]):
                best = candidate, exact
            if exact == quick or limits.near(exact):
                break
        elif (counts == lattice.smallest()).all():
            break
        target = _moved(target, limits, exact, quick)
    if best is None:
        raise refusal(costs, limits.limits, exact, exact)
    return best


def _moved(target: Target, limits: Target, exact: Cost, quick: Cost) -> Target:
    """Return the target that should make the exact cost land on the limits."""
    gaps = {measure: getattr(exact, measure) - getattr(quick, measure) for measure in limits.limits}
    new = {measure: limit - gaps[measure] for measure, limit in limits.limits.items()}
    if not limits.fits(exact):  # go down for sure, whatever the gap was
        new = {measure: min(value, _lower(target.limits[measure])) for measure, value in new.items()}
    return Target(new)


def _lower(limit: float) -> float:
    return int(0.995 * limit) if isinstance(limit, int) else 0.995 * limit


def _chosen(lattice: Lattice, counts: np.ndarray, values: Mapping[str, np.ndarray]) -> Plan:
    """Return the plan that keeps the best units of every group that loses some."""
    keep = {
        name: tuple(np.sort(ranked(values[name])[:count]).tolist())
        for name, count, size in zip(lattice.names, counts.tolist(), lattice.sizes.tolist(), strict=True)
        if count < size
    }
    return Plan(keep, lattice.graph.fingerprint)


def _landing(lattice: Lattice, found: Plan, cost: Cost, limits: Target) -> list[str]:
    """Return notes on a plan that lands far below its budget, or off its multiples."""
    notes = []
    if not limits.near(cost):
        used = ", ".join(f"{number(getattr(cost, m))} of {number(limit)} {m}" for m, limit in limits.limits.items())
        notes.append(f"the largest plan found below the budget uses {used}: no group's next step fits")
    counts = np.array([len(found.keep.get(name, range(group.size))) for name, group in lattice.graph.groups.items()])
    off = [name for name, is_off in zip(lattice.names, lattice.off(counts), strict=True) if is_off]
    if off:
        notes.append(f"ties keep {len(off)} groups off multiples of {lattice.multiple}: {', '.join(off[:3])}")
    return notes
