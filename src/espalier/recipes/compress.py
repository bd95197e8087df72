"""From a model and a task to a smaller model: trace, score, plan, cut, fine-tune, save, reload, measure.

    model ──train (if asked)──▶ dense ──┬─▶ trace ─▶ score ─▶ plan ─▶ cut, proved ─▶ fine-tune ─┬─▶ save, load, measure
                                        └──────────────────── once a round ◀────────────────────┘

Each round goes an equal factor of the way to the budget. The optimizer's moments are sliced with the weights.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import criteria
from ..core import Budget, Cost, CutError, ModelError, Plan
from ..core.run import Epoch, Run, Width
from ..graph import carry_optimizer, cut, trace
from ..graph.files import load, save
from ..measure import Comparison, compare
from ..selection import plan as choose
from ..tasks.metrics import logits
from .finetune import finetune, new_optimizer
from .folder import Journal, environment
from .progress import bar, each
from .settings import Settings, Training
from .untrained import untrained_note

if TYPE_CHECKING:
    from ..graph import Graph
    from ..tasks import Task

_LATENCY_MACS = 10**9  # latency is timed on a batch that costs about this much, so that it takes moments everywhere
_LATENCY_BATCH = 64  # and no larger than this


@dataclass(frozen=True)
class Result:
    """What a compression gives back.

    Attributes:
        model: the smaller network, an ordinary module of the same class.
        run: what was asked and what happened.
        comparison: before and after.
    """

    model: nn.Module
    run: Run
    comparison: Comparison


@dataclass(frozen=True)
class Names:
    """What to call the model and the data, for people to read."""

    model: str = ""
    data: str = ""


def compress(
    model: nn.Module,
    task: Task,
    settings: Settings,
    *,
    folder: str | Path | None = None,
    names: Names = Names(),
) -> Result:
    """Return a smaller network that does ``task``, with a record of how it came about. ``model`` is untouched.

    Args:
        model: any network that the engine can trace and whose outputs are class scores.
        task: train, validation and test splits, and the loss.
        settings: budget, criterion, epochs and so on.
        folder: of the run; it must not exist. Nothing is written when None.
        names: for the report.

    Raises:
        ModelError: the model does not run on the task's inputs, or nothing in it can be pruned.
        BudgetError: no budget, or one that no plan can reach.
        UnknownNameError: no such criterion, or a pattern that matches nothing.
        TrainingError: the loss is no longer finite.
    """
    criteria.named(settings.criterion)
    budget = Budget(macs=settings.macs, params=settings.params, activations=settings.activations)
    example = task.example()
    graph = trace(model, example)
    _check_classes(model, example, task)
    _plan(graph, criteria.random(model, graph), budget, settings)  # an unreachable budget is refused before any work
    limits = {measure: int(limit) for measure, limit in budget.limits(graph.cost())}
    run = _new_run(
        graph,
        settings,
        Names(names.model or type(model).__name__, names.data),
        None if folder is None else Path(folder).name,
    )
    task = task.new_run()
    with Journal(run, None if folder is None else Path(folder)) as journal:
        dense, optimizer = _train_dense(model, task, settings, journal)
        journal.update(notes=tuple(filter(None, (*journal.run.notes, untrained_note(dense, task)))))
        small = _shrink(dense, task, settings, limits, optimizer, journal)
        small = _save_and_reload(small, model, example, journal)
        comparison = _measure(dense, small, task, (graph.cost(), trace(small, example).cost()), journal)
    return Result(small, journal.run, comparison)


def _check_classes(model: nn.Module, example: Tensor, task: Task) -> None:
    with torch.no_grad():
        shape = tuple(logits(copy.deepcopy(model).eval()(example)).shape)
    if len(shape) != 2 or shape[1] < task.classes:
        raise ModelError(
            f"{type(model).__name__} answers with shape {shape} for a batch of {len(example)}; the data has "
            f"{task.classes} classes, so it should be ({len(example)}, {task.classes})"
        )


def _new_run(graph: Graph, settings: Settings, names: Names, folder: str | None) -> Run:
    return Run(
        name=folder or "run",
        model=names.model,
        data=names.data,
        settings=dataclasses.asdict(settings),
        environment=environment(settings.seed),
        frozen=graph.frozen,
        widths=tuple(
            Width(group=g.name, before=g.size, after=g.size, slots=len(g.slots)) for g in graph.groups.values()
        ),
    )


def _train_dense(
    model: nn.Module, task: Task, settings: Settings, journal: Journal
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a trained copy of the model where training is asked for, and an optimizer for it."""
    dense = copy.deepcopy(model)
    training = settings.training(settings.train_epochs, settings.train_lr)
    optimizer = new_optimizer(dense, training)
    if settings.train_epochs:
        _train(dense, task, training, optimizer, "training", journal)
        if journal.folder is not None:
            save(dense, journal.folder / "dense.safetensors")
    return dense, optimizer


def _train(
    model: nn.Module,
    task: Task,
    training: Training,
    optimizer: torch.optim.Optimizer,
    stage: str,
    journal: Journal,
) -> None:
    """Train ``model`` in place; the run's history and its checkpoint follow epoch by epoch."""

    def record(epoch: Epoch) -> None:
        counted = dataclasses.replace(epoch, epoch=len(journal.run.history) + 1)
        if journal.folder is not None:
            save(model, journal.folder / "checkpoint.safetensors")
        journal.update(history=(*journal.run.history, counted))

    finetune(model, task, training, optimizer=optimizer, stage=stage, on_epoch=record)


def _shrink(
    dense: nn.Module,
    task: Task,
    settings: Settings,
    limits: dict[str, int],
    optimizer: torch.optim.Optimizer,
    journal: Journal,
) -> nn.Module:
    """Return ``dense`` cut to the limits in ``settings.rounds`` rounds, fine-tuned after each."""
    small, example = dense, task.example()
    for left in range(settings.rounds, 0, -1):
        graph = trace(small, example)
        plan = _plan(graph, _scores(small, graph, task, settings), _step_budget(graph.cost(), limits, left), settings)
        with bar("cutting and proving"):
            smaller = cut(small, graph, plan, prove=True)
        optimizer = carry_optimizer(optimizer, small, smaller)
        small = smaller
        done = settings.rounds - left + 1
        journal.write("plan.json" if settings.rounds == 1 else f"plan-{done}.json", plan.to_json())
        journal.update(
            widths=_narrowed(journal.run.widths, plan),
            notes=(*journal.run.notes, *(note for note in plan.notes if note not in journal.run.notes)),
            proof=f"{done} of {settings.rounds} cuts proved in {small.espalier_proof}: cut equals masked",
        )
        training = settings.training(settings.epochs if left == 1 else settings.round_epochs)
        if training.epochs:
            stage = "fine-tuning" if left == 1 else f"fine-tuning after cut {done}"
            _train(small, task, training, optimizer, stage, journal)
    return small


def _step_budget(cost: Cost, limits: dict[str, int], left: int) -> Budget:
    """Return the budget of one round: an equal factor in each of the rounds that are left.

    limit_round = cost * (limit / cost) ** (1 / left)
    """
    steps = {
        name: limit if left == 1 else int(getattr(cost, name) * min(1.0, limit / getattr(cost, name)) ** (1 / left))
        for name, limit in limits.items()
    }
    return Budget(**steps)


def _scores(model: nn.Module, graph: Graph, task: Task, settings: Settings) -> criteria.Scores:
    criterion = criteria.named(settings.criterion)
    if settings.criterion in criteria.DATA_DRIVEN:
        total = min(settings.score_batches, len(task.train))
        batches = each(itertools.islice(task.train, total), "scoring", total)
        return criterion(model, graph, batches=batches, loss=task.loss)
    if settings.criterion == "random":
        return criterion(model, graph, seed=settings.seed)
    return criterion(model, graph)


def _plan(graph: Graph, scores: criteria.Scores, budget: Budget, settings: Settings) -> Plan:
    return choose(graph, scores, budget, strategy=settings.strategy, round_to=settings.round_to, keep=settings.keep)


def _narrowed(widths: tuple[Width, ...], plan: Plan) -> tuple[Width, ...]:
    """Return the widths after ``plan``; groups keep their names from cut to cut."""
    return tuple(
        dataclasses.replace(width, after=len(plan.keep[width.group])) if width.group in plan.keep else width
        for width in widths
    )


def _save_and_reload(small: nn.Module, original: nn.Module, example: Tensor, journal: Journal) -> nn.Module:
    """Write the model, read it back on a copy of the uncut one, and return that copy if it answers the same.

    Raises:
        CutError: it does not.
    """
    if journal.folder is None:
        return small
    path = journal.folder / "model.safetensors"
    save(small, path)
    back = load(path, original).eval()
    small.eval()
    with torch.no_grad():
        same = torch.equal(logits(small(example)), logits(back(example)))
    if not same:
        raise CutError("the saved model answers differently after it is loaded: it keeps state outside its tensors")
    journal.remove("checkpoint.safetensors")
    journal.update()
    return back


def _measure(dense: nn.Module, small: nn.Module, task: Task, costs: tuple[Cost, Cost], journal: Journal) -> Comparison:
    """Compare both networks, with the test split's accuracy: the only time that split is read."""
    batch = task.example(max(1, min(_LATENCY_BATCH, _LATENCY_MACS // max(costs[0].macs, 1))))
    with bar("timing"):
        comparison = compare(dense, small, batch, costs=costs)
    found = task.test_once({"dense": dense, "small": small}, watched=lambda test: each(test, "testing", len(test)))
    comparison = dataclasses.replace(
        comparison,
        before=dataclasses.replace(comparison.before, accuracy=found["dense"]),
        after=dataclasses.replace(comparison.after, accuracy=found["small"]),
        conditions=f"{comparison.conditions}, batch {len(batch)}",
    )
    journal.update(
        before=comparison.before,
        after=comparison.after,
        latency_ratio=comparison.latency_ratio,
        environment={**journal.run.environment, "latency": comparison.conditions.removeprefix("latency: ")},
    )
    return comparison
