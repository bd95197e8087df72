"""What is seen before any work of a run: a mistake shows now, and not after hours of training."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import backends, criteria
from ..backends import files
from ..core import Budget, ModelError
from ..graph import trace
from ..graph.probes.outputs import logits
from ..selection.sparsity import aimed
from ..transforms.layers import chosen, named
from .stages.planning import Target, plan_of
from .steps import Cluster, Export, Prune, Quantize, Sparsify
from .steps.export import SUFFIXES

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tasks import Task
    from .recipe import Recipe


def check(model: nn.Module, task: Task, recipe: Recipe) -> Graph:
    """See that the model runs, that it knows the task's classes and that every budget can be reached; return its graph.

    Raises:
        ModelError: the model does not run on the task's inputs, has fewer classes, or nothing in it can be pruned.
        BudgetError: a budget that no plan can reach.
        UnknownNameError: a pattern that matches nothing.
        BackendError: what is to measure a latency, or to export, is not installed.
    """
    example = task.example()
    graph = trace(model, example)
    _check_classes(model, example, task)
    random = criteria.random(model, graph)
    for step in recipe.steps:
        if isinstance(step, Prune):
            budget: dict[str, Any] = step.budget() or {"macs": step.step_ratio}
            if step.limits_latency:
                _check_backend(step.backend)
                budget = {"macs": step.step_ratio}  # of the patterns at least; milliseconds are known when measured
            plan_of(step, graph, random, Target(Budget(**budget)))
        elif isinstance(step, Sparsify):
            aimed(model, step.target())
        elif isinstance(step, Cluster):
            step.target().by_tensor(model)
        elif isinstance(step, Export):
            _check_export(step)
        elif isinstance(step, Quantize):
            chosen(model, step.keep)
            for pattern in step.bits:
                named(model, pattern)
    return graph


def _check_backend(name: str) -> None:
    reason = backends.named(name).unavailable()
    if reason:
        raise backends.BackendError(reason)


def _check_export(step: Export) -> None:
    reason = files.unavailable(SUFFIXES[step.to], int8=step.int8)
    if reason:
        raise backends.ExportError(f"the step export to {step.to}{' in int8' * step.int8} cannot be done: {reason}")


def _check_classes(model: nn.Module, example: Tensor, task: Task) -> None:
    with torch.no_grad():
        shape = tuple(logits(copy.deepcopy(model).eval()(example)).shape)
    if len(shape) < 2 or shape[1] < task.classes:
        raise ModelError(
            f"{type(model).__name__} answers with shape {shape} for a batch of {len(example)}; the data has "
            f"{task.classes} classes, so it should be ({len(example)}, {task.classes})"
        )
