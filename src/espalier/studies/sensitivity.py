"""Sensitivity: every group cut alone, at several ratios, and the accuracy that is left without any training.

    accuracy[g, r] = metric of the network without the r * size lowest units of group g, on validation

*Source*: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710, section 3.2 and figure 2b.
*Differs*: (1) a group is all channels that live and die together, not a layer; (2) where groups are tied in size, those
that are tied are cut with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from ..core import CutError, Plan, PlanError
from ..graph import Graph, cut
from .jobs import Job, dense_job, recipe_of
from .study import Sensitivity
from .work import scored


def jobs_of(study: Sensitivity) -> Iterator[Job]:
    """Yield everything that the study needs, dense networks first."""
    starts = {(one.name, seed): dense_job(one, seed, study.split) for one, seed in product(study.tasks, study.seeds)}
    yield from starts.values()
    for subject, seed, name in product(study.tasks, study.seeds, study.criteria):
        cell = {"task": subject.name, "seed": seed, "criterion": name}
        options = {"criterion": name, "score_batches": study.score_batches, "ratios": list(study.ratios)}
        start = starts[subject.name, seed]
        yield Job("sensitivity", cell, recipe_of(subject, seed, ()), options, start, study.split)


def do(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Cut each group alone, and measure."""
    model, task, graph, scores = scored(payload)
    groups: dict[str, Any] = {}
    notes: list[str] = []
    ratios: list[float] = payload["options"]["ratios"]
    for name, ratio in product(graph.groups, ratios):
        plan = _alone(graph, scores, name, ratio)
        try:
            small = cut(model, graph, plan, prove=False)
        except (PlanError, CutError) as error:
            notes.append(f"{name} at {ratio:g}: not cut: {error}")
            continue
        row = {"ratio": ratio, "kept": len(plan.keep.get(name, ())) or graph.sizes[name], "tied": len(plan.keep) - 1}
        groups.setdefault(name, []).append({**row, "accuracy": task.evaluate(small, task.validation)})
    return {"dense": task.evaluate(model, task.validation), "sizes": graph.sizes, "groups": groups, "notes": notes}


def _alone(graph: Graph, scores: Mapping[str, Any], name: str, ratio: float) -> Plan:
    """Return the plan that cuts a group, and what is tied to it."""
    size = graph.sizes[name]
    counts = graph.feasible({name: max(1, size - round(ratio * size))}, held={name})
    keep = {
        group: tuple(sorted(scores[group].argsort(descending=True, stable=True)[:count].tolist()))
        for group, count in counts.items()
        if count < graph.sizes[group]
    }
    return Plan(keep, graph.fingerprint)
