"""Measure: the dense network and the result, and the only reading of the test split."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...core import Cost
from ...core.run import Latency, Layer, Measures, Reading
from ...graph import trace
from ...measure import compare
from ..checkpoints import Handle
from ..folder import now
from ..layers import layer_costs
from ..progress import bar, each
from ..steps import Measure
from ..work import Work

_LATENCY_MACS = 10**9  # latency is timed on a batch that costs about this much, so that it takes moments everywhere
_LATENCY_BATCH = 64  # and no larger than this


def do(step: Measure, name: str, work: Work, handle: Handle) -> Handle:
    """Measure both networks and write what was found."""
    found = work.checkpoints.once(name, lambda: _measure(step, work, handle))
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
    costs = tuple(trace(model, work.example).cost() for model in (dense, small))
    size = step.batch or max(1, min(_LATENCY_BATCH, _LATENCY_MACS // max(costs[0].macs, 1)))
    with bar("timing"):
        compared = compare(
            dense, small, task.example(size), latency=step.latency, rounds=step.rounds, costs=_pair(costs)
        )
        layers = layer_costs(dense, small, task.example(1))
    scores = task.test_once({"dense": dense, "small": small}, watched=lambda test: each(test, "testing", len(test)))
    latency = None
    if compared.latency_ratio is not None:
        latency = Latency(
            conditions=f"{compared.conditions.removeprefix('latency: ')}, batch {size}",
            before_ms=compared.before.latency_ms or 0.0,
            after_ms=compared.after.latency_ms or 0.0,
            ratio=compared.latency_ratio,
        )
    return {
        "before": {**dataclasses.asdict(compared.before), "accuracy": scores["dense"]},
        "after": {**dataclasses.asdict(compared.after), "accuracy": scores["small"]},
        "latency": None if latency is None else dataclasses.asdict(latency),
        "layers": [dataclasses.asdict(layer) for layer in layers],
        "readings": [{**dataclasses.asdict(reading), "at": now()} for reading in task.test_readings],
    }


def _pair(costs: tuple[Cost, ...]) -> tuple[Cost, Cost]:
    before, after = costs
    return before, after
