"""The front door: models by name, and the whole job in one call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import zoo
from .core import EspalierError, FileError, KindError
from .core.atomic import write_text

if TYPE_CHECKING:
    from torch import nn

    from .core.findings import Findings
    from .recipes import Recipe, Settings
    from .recipes.run import Result
    from .tasks import Task


def model(
    name: str, *, pretrained: bool = False, classes: int | None = None, weights: str | Path | None = None
) -> nn.Module:
    """Build a model by name. Nothing is downloaded unless ``pretrained`` is true.

    >>> model("espalier:digits_cnn", classes=3).head
    Linear(in_features=64, out_features=3, bias=True)

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, ``transformers:TYPE`` (an architecture with random weights;
            ``transformers:tiny-TYPE`` is the same in small), ``espalier:NAME``, or ``path/to/file.py:function``.
        pretrained: fetch the published weights of a timm or torchvision model.
        classes: outputs of the classifier; the source's own number when None.
        weights: a file with trained weights: safetensors, or a PyTorch checkpoint (read without pickle's code).

    Raises:
        UnknownNameError: no such source, or no such model in it; the message has the nearest name.
        ModelError: the package that keeps it is not installed, or the model cannot be built.
        FileError: the weights are missing, damaged or made for another network.
    """
    made = zoo.build(name, pretrained=pretrained, classes=classes)
    if weights is not None:
        zoo.load_weights(made, weights)
    return made


def default_example(model: nn.Module, name: str) -> Any:
    """Return an input that the named model runs on: random numbers from a fixed seed, batch 2.

    Args:
        model: what ``es.model(name)`` returned, or a cut of it.
        name: the name that it was built by.

    Returns:
        A tensor, a tuple of positional inputs, or a dict of keywords.

    Raises:
        UnknownNameError: no such source.
        ModelError: the source does not say what the model reads.
    """
    return zoo.default_example(model, name)


def compress(model: nn.Module, task: Task, recipe: Recipe | Settings, *, folder: str | Path | None = None) -> Result:
    """Return a smaller network that does ``task``, with the record of how it came about: do what a recipe says.

    Args:
        model: any network that the engine can trace; it is untouched.
        task: what ``es.load_task`` returns, or a ``Task`` of your own.
        recipe: steps such as ``Prune`` and ``Finetune``; or ``Settings``, from which a recipe is built.
        folder: of the run, with the model, every measure and ``report.html``; it must not exist. ``es.resume`` goes on
            from it after a crash. Nothing is written when None.

    Raises:
        KindError: an argument is of another kind.
        ModelError: the model does not run on the task's inputs, or nothing in it can be pruned.
        BudgetError: a budget that no plan can reach.
        UnknownNameError: a pattern that matches nothing.
        TrainingError: the loss is no longer finite.
        FileError: the folder exists, or cannot be written.
    """
    from .graph.kinds import check_model, check_path
    from .recipes import Recipe, Settings
    from .recipes.run import Names, run_recipe
    from .tasks import Task

    check_model("compress", model)
    if not isinstance(task, Task):
        raise KindError(f"compress takes a Task, such as es.load_task(...) returns, not {type(task).__name__}")
    if not isinstance(recipe, Recipe | Settings):
        raise KindError(f"compress takes a Recipe or Settings, not {type(recipe).__name__}")
    if folder is not None:
        check_path("compress", folder)
    whole = recipe.recipe() if isinstance(recipe, Settings) else recipe
    names = Names(model=getattr(model, "espalier_source", "") or whole.model, data=task.name)
    if folder is None:
        return run_recipe(model, task, whole, names=names)
    with _reported(Path(folder)):
        return run_recipe(model, task, whole, folder=Path(folder), names=names)


def resume(
    folder: str | Path, model: nn.Module | None = None, task: Task | None = None, *, trusted: bool = False
) -> Result:
    """Go on with a run that was stopped, from its last checkpoint. On a CPU the weights end bit by bit the same.

    Args:
        folder: of the run.
        model, task: what the run began with, where its recipe does not name them; the model's weights do not matter.
        trusted: import a ``path/to/file.py:function`` that the recipe names even if the folder was written elsewhere.

    Raises:
        FileError: there is nothing to go on from, or the folder is damaged or foreign.
        RecipeError: the recipe names no model or no data, and none is given.
    """
    from .graph.kinds import check_path
    from .recipes import files, named
    from .recipes.folders import origin
    from .recipes.folders.folder import RECIPE
    from .recipes.folders.located import located
    from .recipes.run import resume as go_on

    check_path("resume", folder)
    path = located(folder)
    recipe = files.read(path / RECIPE)
    foreign = [name for name in (recipe.model, recipe.data) if named.is_own(name)]
    if model is None and foreign and not trusted and not origin.is_ours(path):
        raise FileError(
            f"{path} was not written here, and to resume it would run the code in {foreign[0]}: look at that file, "
            "and then say so (trusted=True, or --trust)"
        )
    task = task or named.load(recipe)
    model = model or named.build(recipe, task)
    with _reported(path, anyway=True):
        return go_on(path, model, task)


@contextmanager
def _reported(folder: Path, *, anyway: bool = False) -> Iterator[None]:
    """Write the report of a run however it ends: one that was interrupted or failed has its report too."""
    from .engines import leads

    if not leads():
        yield
        return
    existed = folder.exists() and not anyway
    try:
        yield
    except BaseException:
        if not existed and folder.exists():
            with suppress(EspalierError):  # the first error is the one to tell
                write_report(folder)
        raise
    write_report(folder)


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, from its ``run.json``, and return its path.

    Raises:
        FileError: there is no run in the folder, or it cannot be written.
    """
    from .recipes.folders.folder import read_run
    from .recipes.folders.located import located
    from .report import render

    place = located(folder)
    path = place / "report.html"
    try:
        write_text(path, render(read_run(place), folder=str(place)))
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_findings(findings: Findings, folder: str | Path) -> Path:
    """Write ``report.html`` and ``findings.json`` into a study's folder, and return the report's path.

    Raises:
        FileError: they cannot be written.
    """
    from .report import render_study

    path = Path(folder) / "report.html"
    try:
        write_text(path.with_name("findings.json"), findings.to_json())
        write_text(path, render_study(findings, folder=str(folder)))
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    return path
