"""Measure: the dense network and the result, and the only reading of the test split."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...core import Cost
from ...core.run import Latency, Layer, Measures, Reading
from ...graph import trace
from ...measure import Race, compare, race
from ..folders.checkpoints import Handle
from ..folders.folder import now
from ..layers import layer_costs
from ..progress import bar, each
from ..steps import Measure, Prune
from ..work import Work

if TYPE_CHECKING:
    from ..recipe import Recipe

_LATENCY_MACS = 10**9  # latency is timed on a batch that costs about this much, so that it takes moments everywhere
_LATENCY_BATCH = 64  # and no larger than this


def do(step: Measure, name: str, work: Work, handle: Handle) -> Handle:
    """Measure both networks and write what was found; one process alone, so that its times are not disturbed."""
    found = work.checkpoints.once(name, lambda: work.engine.first(lambda: _measure(step, work, handle)))
    run = work.journal.run
    latency = Latency(**{**found["latency"], "ratio": tuple(found["latency"]["ratio"])}) if found["latency"] else None
    work.journal.update(
        before=Measures(**found["before"]),
        after=Measures(**found["after"]),
        latency_ratio=latency.ratio if latency else None,
        latencies=(*run.latencies, latency) if latency else run.latencies,
        layers=tuple(Layer(**layer) for layer in found["layers"]),
        readings=tuple(Reading(**reading) for reading in found["readings"]),
        environment={**run.environment, **({"latency": latency.conditions} if latency else {})},
    )
    return handle


def _measure(step: Measure, work: Work, handle: Handle) -> dict[str, Any]:
    dense, small, task = work.dense.open().model, handle.open().model, work.task
    before, after = (trace(model, work.example).cost() for model in (dense, small))
    compared = compare(dense, small, work.example, latency=False, costs=(before, after))
    measures = [asdict(compared.before), asdict(compared.after)]
    latency, layers = None, []
    if step.latency:
        how = _conditions(step, work.recipe, before)
        with bar("timing"):
            timed = race(
                dense, small, task.example(how.inputs), rounds=step.rounds, backend=step.backend, threads=how.threads
            )
            layers = layer_costs(dense, small, task.example(1))
        latency = _latency(how, timed)
        for row, one in zip(measures, (timed.before, timed.after), strict=True):
            row |= {"latency_ms": one.median_ms, "latency_spread_ms": one.spread_ms}
    scores = task.test_once({"dense": dense, "small": small}, watched=lambda test: each(test, "testing", len(test)))
    return {
        "before": {**measures[0], "accuracy": scores["dense"]},
        "after": {**measures[1], "accuracy": scores["small"]},
        "latency": None if latency is None else asdict(latency),
        "layers": [asdict(layer) for layer in layers],
        "readings": [{**asdict(reading), "at": now()} for reading in task.test_readings],
    }


@dataclass(frozen=True)
class _Conditions:
    """How networks are timed: threads, inputs a pass and why so many, and the prune step that asked for just that."""

    threads: int | None
    inputs: int
    why: str
    asked: Prune | None


def _conditions(step: Measure, recipe: Recipe, dense: Cost) -> _Conditions:
    """Return the step's conditions; what it leaves open is as in the prune step that limits latency on its backend."""
    prunes = [s for s in recipe.steps if isinstance(s, Prune) and s.limits_latency and s.backend == step.backend]
    if not prunes:
        enough = max(1, min(_LATENCY_BATCH, _LATENCY_MACS // max(dense.macs, 1)))
        why = " (enough to time well)" if step.batch is None and enough > 1 else ""
        return _Conditions(step.threads, step.batch or enough, why, None)
    asked = prunes[-1]
    threads, inputs = step.threads or asked.threads or 1, step.batch or asked.latency_batch
    same = (threads, inputs) == (asked.threads or 1, asked.latency_batch)
    return _Conditions(threads, inputs, "", asked if same else None)


def _latency(how: _Conditions, timed: Race) -> Latency:
    """Return a timing as data, with what was asked for where that was asked for under these conditions."""
    target = None
    if how.asked is not None:
        ratio = (how.asked.latency_ratio or math.inf) * timed.before.median_ms
        target = min(how.asked.latency_ms or math.inf, ratio)
    inputs = f"{how.inputs} inputs at once{how.why}" if how.inputs > 1 else "1 input"
    return Latency(
        conditions=f"{timed.conditions}, {inputs}",
        before_ms=timed.before.median_ms,
        after_ms=timed.after.median_ms,
        ratio=timed.ratio,
        target_ms=target,
    )
