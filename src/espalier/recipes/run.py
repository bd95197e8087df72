"""From a model, a task and a recipe to a smaller model: check, do the steps in order, and leave a record.

check ──▶ folder, recipe.toml ──▶ step ──▶ step ──▶ ... ──▶ result
                                    │
                              checkpoints  ◀── resume begins again here, and looks up what is done
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from .. import engines
from ..core import EspalierError, FileError
from ..core.run import Run, Width
from ..engines.engine import Engine, placed
from ..graph import trace
from ..graph.masks import densities
from ..graph.recording.running import fixed_threads
from ..measure import Comparison
from . import files, named
from .checks import check
from .folders import origin
from .folders.checkpoints import Checkpoints, callers_chance
from .folders.folder import CHECKPOINTS, RECIPE, RUN, Journal, create_folder, environment, read_run
from .folders.owner import Owner
from .stages import STAGES
from .stages.encode import weigh
from .stages.path import begin
from .steps import Binarize, Cluster, Prune, Quantize, Sparsify
from .training.state import State
from .untrained import untrained_note
from .work import Work

if TYPE_CHECKING:
    from ..core import Group
    from ..graph import Graph
    from ..tasks import Task
    from .recipe import Recipe


@dataclass(frozen=True)
class Result:
    """What a run gives back.

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


def run_recipe(
    model: nn.Module, task: Task, recipe: Recipe, *, folder: Path | None = None, names: Names = Names()
) -> Result:
    """Do what the recipe says, and return the smaller network with the record of how it came about.

    Args:
        model: any network that the engine can trace; it is untouched.
        task: train, validation and test splits, and the loss.
        recipe: what to do.
        folder: of the run; it must not exist. Nothing is written when None.
        names: for the report.

    Raises:
        ModelError: the model does not run on the task's inputs, or nothing in it can be pruned.
        BudgetError: a budget that no plan can reach.
        UnknownNameError: a pattern that matches nothing.
        TrainingError: the loss is no longer finite.
        FileError: the folder exists, or cannot be written.
    """
    recipe, engine = recipe.whole(), engines.current(recipe.engine)
    if folder is not None and engines.restarted() and engine.first(partial(_is_of, folder, recipe)):
        return _resumed(folder, model, task, engine)
    with callers_chance():
        model = _at_rest(model)
        graph = check(model, task, recipe)
        run = _new_run(graph, task, recipe, Names(names.model or recipe.model or type(model).__name__, names.data))
        if folder is not None:
            engine.first(partial(_begin, folder, recipe))
            run = replace(run, name=folder.name)
        with _owned(folder, engine):
            return _go(model, task, run, folder, (recipe, engine))


def resume(folder: Path, model: nn.Module, task: Task) -> Result:
    """Go on with a run that was stopped, from its last checkpoint; its weights end as they would have.

    Args:
        folder: of the run.
        model: of the architecture that the run began with; its weights do not matter.
        task: the run's.

    Raises:
        FileError: there is nothing to go on from, or it belongs to another model.
    """
    return _resumed(folder, model, task, engines.current(files.read(folder / RECIPE).engine))


def _resumed(folder: Path, model: nn.Module, task: Task, engine: Engine) -> Result:
    recipe, old = files.read(folder / RECIPE), Run.from_json(engine.first(lambda: read_run(folder).to_json()))
    if not (folder / CHECKPOINTS).is_dir():
        raise FileError(f"{folder}: the run is {old.status} and has no checkpoints: there is nothing to resume")
    threads = int(old.environment.get("threads", 0))  # the last bits of its sums depend on them
    with callers_chance(), _owned(folder, engine), fixed_threads(threads):
        model = _at_rest(model)
        graph = trace(model, task.example())
        run = _new_run(graph, task, recipe, Names(old.model, old.data))
        run = replace(run, name=old.name, started=old.started, resumes=old.resumes + 1)
        going = replace(old, status="running", finished="", resumes=run.resumes)
        # until what was done is looked up, the old record is the best there is
        Journal(going, folder, silent=engine.rank != 0).update()
        return _go(model, task, run, folder, (recipe, engine))


@contextmanager
def _owned(folder: Path | None, engine: Engine) -> Iterator[None]:
    """Have rank 0 hold the run's lock: no two runs write into one folder."""
    owner = None if folder is None else Owner(folder)
    if owner is not None:
        engine.first(owner.begin)
    try:
        yield
    finally:
        if owner is not None:
            owner.end()


def _begin(folder: Path, recipe: Recipe) -> None:
    """Make the run folder."""
    create_folder(folder)
    files.write(recipe, folder / RECIPE)
    if named.is_own(recipe.model) or named.is_own(recipe.data):
        origin.seal(folder)


def interrupted(root: Path, recipe: Recipe) -> Path | None:
    """Return the newest run folder of this recipe that can go on."""
    found = [path for path in root.glob("*/") if _is_of(path, recipe.whole())]
    return max(found, key=lambda path: (path / RUN).stat().st_mtime, default=None)


def _is_of(folder: Path, recipe: Recipe) -> bool:
    """Say whether a folder has a run of this recipe that can go on."""
    found = (folder / CHECKPOINTS).is_dir() and (folder / RUN).exists()
    with suppress(EspalierError):  # a neighbour that is damaged is not ours
        return found and files.read(folder / RECIPE) == recipe
    return False


def _at_rest(model: nn.Module) -> nn.Module:
    """Return the model where runs keep theirs: on the CPU."""
    away = any(tensor.device.type != "cpu" for tensor in (*model.parameters(), *model.buffers()))
    return copy.deepcopy(model).cpu() if away else model


def _go(model: nn.Module, task: Task, run: Run, folder: Path | None, how: tuple[Recipe, Engine]) -> Result:
    """Do the steps that are not done yet."""
    recipe, engine = how
    task = named.minimising(task.new_run(), recipe.loss)
    original = copy.deepcopy(model)
    checkpoints = Checkpoints(None if folder is None else folder / CHECKPOINTS, original, recipe.seed, engine)
    if run.resumes and not recipe.model and not checkpoints.replaying:
        raise FileError(f"{folder}: the run was stopped before it had kept its model: remove the folder and begin anew")
    silent = engine.rank != 0
    with Journal(run, folder, lambda: checkpoints.replaying, silent=silent) as journal:
        journal.note(checkpoints.note)
        handle, _ = checkpoints.change("start", lambda: (State(copy.deepcopy(model)), None))
        checkpoints.pin("dense", handle)
        work = Work(task, recipe, original, task.example(), journal, checkpoints, handle, engine=engine)
        for number, step in enumerate(recipe.steps, 1):
            if isinstance(step, Prune | Sparsify | Quantize | Binarize | Cluster) and not work.pruned:
                dense = work.dense
                journal.note(checkpoints.once("dense/untrained", lambda d=dense: _untrained(d.open().model, work)))
                begin(work)
            handle = STAGES[step.kind](step, f"{number}-{step.kind}", work, handle)
            weigh(step, f"{number}-{step.kind}", work, handle)
        small = handle.open().model
        journal.update(densities=densities(small))
        checkpoints.forget()
    done = journal.run
    conditions = f"latency: {done.latencies[-1].conditions}" if done.latencies else ""
    return Result(small, done, Comparison(done.before, done.after, done.latency_ratio, conditions, done.metric))


def _untrained(model: nn.Module, work: Work) -> str:
    with placed(work.engine.device, model):
        return untrained_note(model, work.task, trained=bool(work.journal.run.history))


def _new_run(graph: Graph, task: Task, recipe: Recipe, names: Names) -> Run:
    return Run(
        name="run",
        model=names.model,
        data=names.data or task.name,
        metric=task.metric,
        recipe=files.to_toml(recipe),
        settings=_spoken(recipe),
        environment=environment(recipe.seed),
        frozen=graph.frozen,
        widths=tuple(_width(group) for group in graph.groups.values()),
        splits={split: len(getattr(task, split)) for split in ("train", "validation", "test")},
        ranked_on_train=any(isinstance(step, Prune) and step.reads_data for step in recipe.steps),
    )


def _width(group: Group) -> Width:
    places = tuple(f"{slot.tensor}:{slot.dim}, {slot.role}" for slot in group.slots)
    return Width(group=group.name, before=group.size, after=group.size, slots=len(places), places=places)


def _spoken(recipe: Recipe) -> dict[str, str]:
    """Return what of a recipe is not a default, a line a step."""
    lines = {}
    for number, step in enumerate(recipe.steps, 1):
        given = step.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
        lines[f"step {number}"] = " ".join([step.kind, *(f"{key}={value}" for key, value in given.items())])
    return {**lines, "batch_size": str(recipe.batch_size), "seed": str(recipe.seed)}
