"""Search: the smallest network whose drop on validation stays within a limit.

    accepted <- dense
    repeat:  trial <- cut(accepted, to factor * its cost), mended
             drop(trial) > max_drop ?   trial <- fine-tuned trial                         (only where it is needed)
             drop(trial) a little more ?  the same once more, at half of the rate
             drop(trial) <= max_drop ?  accepted <- trial  :  factor <- sqrt(factor)      (the trial is undone)
    until the budget is met, the factor is too near 1 to matter, or the rounds are used up

A trial that was trained is judged at the end of its last epoch: the best of several looks would be the luckiest. One
that misses by little, ``retry_ratio * max_drop``, is trained and judged a second time, at half of the learning rate.
The drop is paired: dense and trial see the same validation examples. Its interval is reported.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from ...core import Budget, BudgetError, Cost
from ...core.run import Point
from ...engines.engine import placed
from ..folders.checkpoints import Handle
from ..steps import Prune
from ..training.state import State
from ..work import Work
from . import latency
from .planning import Target
from .prune import aim_of, cut_once, trained

_FINEST = 0.95  # steps that leave more than this are not worth a round of training


def search(step: Prune, name: str, work: Work, handle: Handle) -> Handle:
    """Return the smallest network that was accepted; the dense one where none was."""
    assert step.max_drop is not None
    reference = work.score("dense/score", work.dense)
    enough = reference - step.max_drop / 100 - 1e-9
    aim = aim_of(step, name, work)
    cost, limits = aim.dense, aim.limits
    accepted, factor, ended = handle, step.step_ratio, f"its {step.max_rounds} rounds were used up"
    work.checkpoints.pin("accepted", accepted)
    for done in range(1, step.max_rounds + 1):
        target = Target(_budget(cost, factor, limits), aim.tables)
        last = bool(limits) and target.budget == Budget(**limits)  # type: ignore[arg-type]  names are its own
        trial = _trial(step, f"{name}/round-{done}", work, accepted, (target, enough, last))
        for point in trial.points:
            work.visit(point)
        if trial.points and trial.points[-1].accepted:
            accepted, cost = trial.handle, trial.cost
            work.checkpoints.pin("accepted", accepted)
            work.narrowed(accepted)
            within = limits and all(getattr(cost, measure) <= limit for measure, limit in limits.items())
            if last or (within and aim.tables is None):  # milliseconds by tables alone are no measurement
                ended = "the budget was met"
                break
        else:
            factor = math.sqrt(factor)
            if factor > _FINEST:
                ended = "a smaller step would not matter"
                break
    _conclude(step, name, work, accepted, (reference, ended))
    return accepted


@dataclass(frozen=True)
class _Trial:
    """A smaller network, what it costs, and its points on the path; no point where no plan is that small."""

    handle: Handle
    cost: Cost
    points: tuple[Point, ...] = ()


def _trial(step: Prune, key: str, work: Work, accepted: Handle, goal: tuple[Target, float, bool]) -> _Trial:
    """Cut and mend; train only where that alone loses too much. The last budget in milliseconds is measured whole."""
    target, enough, last = goal
    try:
        if last and target.tables is not None:
            target = replace(target, plan=latency.met(step, f"{key}/cut", work, accepted, target))
        handle, cost = cut_once(step, f"{key}/cut", work, accepted, target)
    except BudgetError as error:
        work.journal.note(f"the search met the smallest plan: {str(error).splitlines()[0]}")
        return _Trial(accepted, Cost(0, 0, 0))
    stage, scores = key.rpartition("/")[2], [work.score(f"{key}/score", handle)]
    if scores[0] < enough and step.finetune is not None and step.finetune.epochs:
        words = f"fine-tuning in {stage.replace('-', ' ')} of the search"
        handle, score = trained(step, f"{key}/train", work, handle, words)
        scores.append(score)
        if 0 < enough - score <= step.retry_ratio * (step.max_drop or 0.0) / 100:
            gentler = step.finetune.model_copy(update={"lr": step.finetune.lr / 2})
            step = step.model_copy(update={"finetune": gentler})
            handle, score = trained(step, f"{key}/train-again", work, handle, f"{words}, again")
            scores.append(score)
    good = scores[-1] >= enough
    points = (
        Point(stage=stage, kind=kind, macs=cost.macs, params=cost.params, score=score, accepted=good)  # type: ignore[arg-type]
        for kind, score in zip(("cut", "trained", "trained"), scores, strict=False)
    )
    return _Trial(handle, cost, tuple(points))


def _budget(cost: Cost, factor: float, limits: Mapping[str, int | float]) -> Budget:
    """Return the next budget: a factor below the cost of now, not below the limits; of MACs where there are none."""
    measures = limits or {"macs": 1}
    steps = {name: max(factor * getattr(cost, name), limit) for name, limit in measures.items()}
    given: dict[str, Any] = {name: value if name == "latency_ms" else int(value) for name, value in steps.items()}
    return Budget(**given)


def _conclude(step: Prune, name: str, work: Work, accepted: Handle, why: tuple[float, str]) -> None:
    """Tell what the search came to, against what, and how sure that is."""
    reference, ended = why
    found = work.checkpoints.once(f"{name}/interval", lambda: paired_spread(work, work.dense.open(), accepted.open()))
    work.narrowed(accepted)
    drop = reference - work.score(f"{name}/score", accepted)
    low, high = 100 * (drop - found["half"]), 100 * (drop + found["half"])
    interval = f"95 % interval {low:.2f} to {high:.2f}, paired, over {found['batches']} batches"
    if found["batches"] < 2:
        interval = "one batch gives no interval: how sure that is is not known"
    work.journal.note(
        f"search: {ended}. At its end the {work.task.metric} on validation had dropped by "
        f"{100 * drop:.2f} points ({interval}); {step.max_drop:g} were allowed. The reference is the dense network "
        f"before the first cut ({100 * reference:.2f} %), which had none of the extra epochs that the small one has"
    )


def paired_spread(work: Work, dense: State, small: State) -> dict[str, Any]:
    """Return half of the 95 % interval of the metric's drop on validation.

    half = t * standard deviation over batches of (dense - small) / sqrt(batches)

    t is Student's 0.975 quantile at batches - 1 degrees of freedom; a short last batch counts as a whole one.
    """
    differences = []
    with placed(work.engine.device, dense.model, small.model):
        for batch in work.task.validation:
            before, after = (work.task.evaluate(state.model, [batch]) for state in (dense, small))
            differences.append(before - after)
    count = len(differences)
    half = stats.t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count) if count > 1 else 0.0
    return {"half": float(half), "batches": count}
