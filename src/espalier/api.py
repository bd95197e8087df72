"""The front door: models by name, and the whole job in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import zoo
from .core.atomic import write_text

if TYPE_CHECKING:
    from torch import nn

    from .recipes.compress import Result
    from .recipes.settings import Settings
    from .tasks import Task


def model(name: str, *, pretrained: bool = False, classes: int | None = None) -> nn.Module:
    """Build a model by name. Nothing is downloaded unless ``pretrained`` is true.

    >>> model("espalier:digits_cnn", classes=3).head
    Linear(in_features=64, out_features=3, bias=True)

    Args:
        name: ``timm:NAME``, ``torchvision:NAME``, ``transformers:TYPE`` (an architecture with random weights;
            ``transformers:tiny-TYPE`` is the same in small), ``espalier:NAME``, or ``path/to/file.py:function``.
        pretrained: fetch the published weights of a timm or torchvision model.
        classes: outputs of the classifier; the source's own number when None.

    Raises:
        UnknownNameError: no such source, or no such model in it; the message has the nearest name.
        ModelError: the package that keeps it is not installed, or the model cannot be built.
    """
    return zoo.build(name, pretrained=pretrained, classes=classes)


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


def compress(model: nn.Module, task: Task, settings: Settings, *, folder: str | Path | None = None) -> Result:
    """Return a smaller network that does ``task``: trace, score, plan, cut, prove, fine-tune, save, measure, report.

    Args:
        model: any network that the engine can trace and whose outputs are class scores; it is untouched.
        task: what ``es.load_task`` returns, or a ``Task`` of your own.
        settings: budget, criterion, epochs and so on.
        folder: of the run, with the model, every measure and ``report.html``; it must not exist. Nothing is written
            when None.

    Raises:
        ModelError: the model does not run on the task's inputs, or nothing in it can be pruned.
        BudgetError: no budget, or one that no plan can reach.
        FileError: the folder exists, or cannot be written.
    """
    from .recipes.compress import Names
    from .recipes.compress import compress as run_recipe

    names = Names(model=getattr(model, "espalier_source", ""), data=task.name)
    if folder is None:
        return run_recipe(model, task, settings, names=names)
    existed = Path(folder).exists()
    try:
        return run_recipe(model, task, settings, folder=folder, names=names)
    finally:  # a run that was interrupted or failed has its report too
        if not existed and Path(folder).exists():
            write_report(folder)


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, from its ``run.json``, and return its path.

    Raises:
        FileError: there is no run in the folder, or it cannot be written.
    """
    from .recipes.folder import read_run
    from .report import render

    path = Path(folder) / "report.html"
    write_text(path, render(read_run(folder)))
    return path
