"""What a worker does: from plain data to plain data, and nothing else that anybody relies on but the files it names.

Everything that is random follows from the recipe's seed, so a job that is done twice, or elsewhere, gives the same.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from .. import criteria
from ..core.run import Run
from ..graph import Graph, save, trace
from ..recipes import Recipe, named
from ..recipes.folders.folder import CHECKPOINTS
from ..recipes.progress import silence
from ..recipes.run import Result, resume, run_recipe
from ..tasks import Task
from .files import StudyError

DENSE = "dense"  # folder of the networks that jobs start from
UNDER_WAY = "under-way"  # folder of the runs that are not finished, from which they go on after a crash


def do(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Do the job that ``Job.payload`` describes."""
    with silence(), _quiet():
        return WORK.get(payload["kind"], _elsewhere)(payload)


def task_of(recipe: Recipe) -> Task:
    """Return the task of a recipe, as for a new run; a worker's next job often has the same."""
    plain = recipe.model_copy(update={"steps": recipe.steps[-1:], "weights": ""})
    return _task(plain.model_dump_json()).new_run()


def built(payload: Mapping[str, Any]) -> tuple[Recipe, nn.Module, Task]:
    """Return the recipe of a job, its network and its task."""
    recipe = Recipe.model_validate(payload["recipe"])
    task = task_of(recipe)
    return recipe, named.build(recipe, task), task


@lru_cache(maxsize=1)
def _task(recipe: str) -> Task:
    return named.load(Recipe.model_validate_json(recipe))


def _dense(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Train the dense network and leave its weights in the study's folder."""
    result = _run(payload)
    path = Path(payload["folder"], DENSE, f"{payload['key']}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save(result.model, path)
    return {**_outcome(result.run, payload["split"]), "file": f"{DENSE}/{path.name}", "params": result.run.after.params}


def _arm(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Cut and train as the recipe says.

    Raises:
        StudyError: it trained for another number of epochs than the study counted.
    """
    found = _outcome(_run(payload).run, payload["split"])
    counted = payload["options"].get("epochs")
    if counted is not None and len(found["curve"]) != counted:
        raise StudyError(
            f"it trained for {len(found['curve'])} epochs, and the study counts {counted}: arms train alike"
        )
    return found


def _scores(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Score the dense network's units, from the batches that a prune step would read."""
    _, _, _, found = scored(payload)
    return {"scores": {group: [float(f"{x:.8g}") for x in scores.tolist()] for group, scores in found.items()}}


def scored(payload: Mapping[str, Any]) -> tuple[nn.Module, Task, Graph, criteria.Scores]:
    """Return a job's network, in eval mode, its task, its graph, and its units' scores by the criterion it names."""
    recipe, model, task = built(payload)
    name, count = payload["options"]["criterion"], payload["options"]["score_batches"]
    options: dict[str, Any] = {}
    if criteria.reads_data(name):
        options = {"batches": islice(task.train, count), "loss": task.loss}
    elif name.removeprefix(criteria.REVERSED) == "random":
        options = {"seed": recipe.seed}
    graph = trace(model.eval(), task.example())
    return model, task, graph, criteria.named(name)(model, graph, **options)


def _elsewhere(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job of a kind that has its own file, which builds on this one."""
    from . import sensitivity
    from .lottery import jobs as lottery
    from .triage import jobs as triage

    return {"triage": triage.do, "sensitivity": sensitivity.do, "lottery": lottery.do}[payload["kind"]](payload)


WORK: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "dense": _dense,
    "arm": _arm,
    "scratch": _arm,
    "scores": _scores,
}


def _run(payload: Mapping[str, Any]) -> Result:
    """Run the recipe in a folder of its own, or go on with what a killed worker left; the folder goes at the end."""
    recipe, model, task = built(payload)
    folder = Path(payload["folder"], UNDER_WAY, payload["key"])
    going = (folder / CHECKPOINTS / "progress.json").exists()
    if folder.exists() and not going:
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        result = resume(folder, model, task) if going else run_recipe(model, task, recipe, folder=folder)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _outcome(run: Run, split: str) -> dict[str, Any]:
    """Return what a study keeps of a run; the test split's metric only where that is what it compares."""
    curve = [epoch.accuracy for epoch in run.history]
    cuts = [point.score for point in run.path if point.kind == "cut"]
    validation = run.path[-1].score if run.path else curve[-1] if curve else None
    return {
        "validation": validation,
        "test": run.after.accuracy if split == "test" else None,
        "after_cut": cuts[-1] if cuts else None,
        "curve": curve,
        "macs_ratio": _ratio(run, "macs"),
        "params_ratio": _ratio(run, "params"),
        "macs": run.after.macs,
        "metric": run.metric,
        "notes": list(run.notes),
    }


def _ratio(run: Run, measure: str) -> float | None:
    before, after = getattr(run.before, measure), getattr(run.after, measure)
    return after / before if before and after is not None else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the warnings of single runs: they are in their notes, and a study has very many."""
    log = logging.getLogger("espalier")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
