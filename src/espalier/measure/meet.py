"""Meet a budget of milliseconds: plan by the tables, cut, measure the whole network, correct the tables, again.

    tables --choose--> plan --cut--> small --race against the dense network--> ratio
       ^------------- factor *= measured / predicted, aimed a little below ---------|

Only ratios of interleaved rounds are trusted: the machine's moods then hit both networks alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn

from .. import backends
from ..core import Budget, BudgetError, Cost, Plan
from ..graph import Graph, cut
from ..selection.latency import LatencyModel
from ..selection.tables import Tables, TablesError
from .latency import race_runs
from .layers import example_of

TOLERANCE = 0.05  # a target is met from here below it up to it
_AIM = 0.975  # the middle of that
_ATTEMPTS = 8
_ROUNDS = 31
_PATIENCE = 4  # times as many where the timings vary too much to tell
_STEPS = 12  # of 1 % towards a plan that was not measured yet

Choose = Callable[[Tables], Plan]


@dataclass(frozen=True)
class Trial:
    """One plan, cut and measured.

    Attributes:
        plan: what was cut.
        predicted_ms: by the tables of the time.
        ratio: of the dense network's latency, as (low, median, high): the 95 % interval of the median over rounds.
        measured_ms: the median ratio of the dense network's own milliseconds.
        factor: of the tables after this trial.
    """

    plan: Plan
    predicted_ms: float
    ratio: tuple[float, float, float]
    measured_ms: float
    factor: float

    @property
    def planned_factor(self) -> float:
        """The tables' factor when it was planned."""
        return self.factor * self.predicted_ms / self.measured_ms

    def to_data(self) -> dict[str, Any]:
        """Return the trial as JSON-ready data."""
        return {**asdict(self), "plan": self.plan.to_json(), "ratio": list(self.ratio)}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Trial:
        """Read what ``to_data`` wrote.

        Raises:
            TablesError: the data is no trial.
        """
        try:
            low, median, high = map(float, data["ratio"])
            numbers = (float(data[name]) for name in ("predicted_ms", "measured_ms", "factor"))
            predicted, measured, factor = numbers
            return cls(Plan.from_json(data["plan"]), predicted, (low, median, high), measured, factor)
        except (KeyError, TypeError, ValueError) as error:
            raise TablesError(f"this is no trial of a latency budget: {error!r:.200}") from error


@dataclass
class Trials:
    """The trials of one budget: those known from before an interruption, and a place for new ones.

    Attributes:
        known: measured earlier; they are not measured again.
        write: called with every new trial, so that it can be kept.
    """

    known: Iterable[Trial] = ()
    write: Callable[[Trial], None] = field(default=lambda trial: None)


@dataclass(frozen=True)
class Met:
    """How a latency budget ended.

    Attributes:
        plan: the largest one measured within the budget, or the fastest measured where none was.
        reached: it is measured within 5 % below the budget.
        note: the measurement in words, and what stopped it where it was not reached.
        trials: in order.
        tables: recalibrated by the last trial.
    """

    plan: Plan
    reached: bool
    note: str
    trials: tuple[Trial, ...]
    tables: Tables


def meet(
    model: nn.Module,
    graph: Graph,
    choose: Choose,
    *,
    budget: Budget,
    tables: Tables,
    trials: Trials | None = None,
    reference: nn.Module | None = None,
) -> Met:
    """Find a plan whose network, measured whole, takes at most the budget's milliseconds and at least 95 % of them.

    Args:
        model: what is cut; untouched.
        graph: of ``model``.
        choose: returns a plan within the budget by the tables that it is given; called at least once a trial.
        budget: has a latency; its other limits are for ``choose`` to keep.
        tables: of ``reference``.
        trials: those of an interrupted run, and where new ones go.
        reference: the dense network that the budget is relative to; ``model`` when None.

    Raises:
        BudgetError: the budget has no latency, or no plan reaches it by the tables.
        BackendError: the backend cannot run a cut network.
    """
    target_ms = _target(budget, tables)
    log = trials or Trials()
    course = _Course(model, graph, reference or model)
    done: list[Trial] = []
    known = list(log.known)
    current = _aimed(tables, tables.factor)
    while len(done) < _ATTEMPTS:
        try:
            plan, current = _new_plan(choose, current, done, _AIM * target_ms)
        except BudgetError as refused:
            if not done:
                raise
            return _ended(done, target_ms, f"by the corrected tables no plan reaches it ({_first(refused)})", tables)
        if _known(plan, done) is not None:
            return _ended(done, target_ms, "no other plan is nearer by the corrected tables", tables)
        if known and known[0].plan.keep == plan.keep:
            trial = known.pop(0)
        else:
            known.clear()
            trial = course.tried(plan, current)
            log.write(trial)
        done.append(trial)
        tables = replace(tables, factor=trial.factor)
        if not plan.keep or (1 - TOLERANCE) * target_ms <= trial.measured_ms <= target_ms:
            return _ended(done, target_ms, "", tables)
        current = _aimed(tables, _corrected(done, _AIM * target_ms))
    return _ended(done, target_ms, f"{_ATTEMPTS} trials were not enough", tables)


def _new_plan(choose: Choose, tables: Tables, trials: list[Trial], goal_ms: float) -> tuple[Plan, Tables]:
    """Return a plan that was not measured yet, and the tables that gave it.

    Nearly equal factors give equal plans: from such a one on, the factor moves in small steps towards the goal.
    """
    plan = choose(tables)
    for _ in range(_STEPS):
        seen = _known(plan, trials)
        if seen is None:
            break
        step = 1.01 if seen.measured_ms > goal_ms else 1 / 1.01
        tables = replace(tables, factor=tables.factor * step)
        plan = choose(tables)
    return plan, tables


def _known(plan: Plan, trials: list[Trial]) -> Trial | None:
    return next((trial for trial in trials if trial.plan.keep == plan.keep), None)


def _corrected(trials: list[Trial], goal_ms: float) -> float:
    """Return the factor to plan with next: between those of the nearest trials on both sides of the goal.

    Where all are on one side, the factor that makes the last prediction right.
    """
    slow = min((t for t in trials if t.measured_ms > goal_ms), key=lambda t: t.measured_ms, default=None)
    fast = max((t for t in trials if t.measured_ms <= goal_ms), key=lambda t: t.measured_ms, default=None)
    if slow is None or fast is None or slow.planned_factor >= fast.planned_factor:
        return trials[-1].factor
    share = (slow.measured_ms - goal_ms) / (slow.measured_ms - fast.measured_ms)
    return slow.planned_factor + share * (fast.planned_factor - slow.planned_factor)


def predicted_ms(graph: Graph, plan: Plan, tables: Tables) -> float:
    """Return a plan's milliseconds by the tables."""
    return LatencyModel.of(graph, tables).ms(graph.counts(plan))


def _target(budget: Budget, tables: Tables) -> float:
    limits = dict(Budget(latency_ms=budget.latency_ms, latency_ratio=budget.latency_ratio).limits(_dense(tables)))
    return float(limits["latency_ms"])


def _dense(tables: Tables) -> Cost:
    return Cost(0, 0, 0, latency_ms=tables.dense_ms)


def _aimed(tables: Tables, factor: float) -> Tables:
    """Return tables that predict a little too much, so that a plan at the limit measures in the middle of the 5 %."""
    return replace(tables, factor=factor / _AIM)


@dataclass(eq=False)
class _Course:
    """Where trials run; the dense network is prepared once."""

    model: nn.Module
    graph: Graph
    reference: nn.Module
    dense: Callable[[], object] | None = None

    def tried(self, plan: Plan, tables: Tables) -> Trial:
        own = tables.conditions
        runner, example = backends.named(own.backend), example_of(self.graph, own.batch)
        self.dense = self.dense or runner.prepare(self.reference, example, own.threads)
        predicted = predicted_ms(self.graph, plan, tables) * _AIM
        small = runner.prepare(cut(self.model, self.graph, plan, prove=False), example, own.threads)
        timed = race_runs(self.dense, small, _ROUNDS, within=TOLERANCE / 2, most=_PATIENCE)
        measured = timed.ratio[1] * tables.dense_ms
        return Trial(plan, predicted, timed.ratio, measured, tables.factor * _AIM * measured / predicted)


def _first(error: Exception) -> str:
    return str(error).split("\n")[0].rstrip(".")


def _ended(trials: list[Trial], target_ms: float, stopped: str, tables: Tables) -> Met:
    within = [trial for trial in trials if trial.measured_ms <= target_ms]
    best = max(within, key=lambda t: t.measured_ms) if within else min(trials, key=lambda t: t.measured_ms)
    reached = (1 - TOLERANCE) * target_ms <= best.measured_ms <= target_ms
    share = best.measured_ms / target_ms
    low, median, high = best.ratio
    note = (
        f"{tables.conditions}: {best.measured_ms:.3g} ms of {target_ms:.3g} allowed ({share:.3f}), "
        f"{median:.3f} [{low:.3f}, {high:.3f}] of the dense network's time over {_ROUNDS} interleaved rounds or more, "
        f"trial {trials.index(best) + 1} of {len(trials)}"
    )
    if not reached:
        note += f"; not within {TOLERANCE:.0%} below the budget: {stopped or 'nothing needs to be cut'}"
    half = (high - low) / 2 / median
    if half > TOLERANCE / 2 and math.isfinite(half):
        note += f"; timings here vary by {half:.1%}, so that is not sure"
    return Met(best.plan, reached, note, tuple(trials), tables)
