"""The model and the task that a recipe names."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import zoo
from ..core import FileError, ModelError, UnknownNameError, cause
from ..tasks import Loader, Task, load_task, squared_hinge
from .files import RecipeError
from .recipe import Recipe
from .steps import Distill


def build(recipe: Recipe, task: Task) -> nn.Module:
    """Build the model with its weights; its classifier has an output a class of the task.

    Raises:
        RecipeError: the recipe names no model.
        UnknownNameError, ModelError, FileError: a name is wrong, or what it names is.
    """
    if not recipe.model:
        raise RecipeError("the recipe names no model: write model = 'timm:resnet18', or give the module in Python")
    torch.manual_seed(recipe.seed)
    # the user's own function decides about its outputs unless it is asked
    classes = task.classes if zoo.takes_classes(recipe.model) else None
    model = zoo.build(recipe.model, pretrained=recipe.pretrained, classes=classes)
    if recipe.weights:
        with _blamed("weights", recipe.weights):
            zoo.load_weights(model, recipe.weights)
    _check_reads(model, recipe.model, task)
    return model


def load(recipe: Recipe) -> Task:
    """Load the task.

    Raises:
        RecipeError: the recipe names no data.
        UnknownNameError, FileError: the name is wrong, or the data is.
    """
    if not recipe.data:
        raise RecipeError("the recipe names no data: write data = 'imagefolder:PATH', or give the task in Python")
    image_size = recipe.image_size or _own_size(recipe.model, recipe.data)
    with _blamed("data", recipe.data):
        task = load_task(recipe.data, batch_size=recipe.batch_size, seed=recipe.seed, image_size=image_size)
    if not recipe.mixup and not recipe.cutmix:
        return task
    if not isinstance(task.train, Loader) or task.train.augment is None:
        raise RecipeError(f"mixup and cutmix are for the loaders of Espalier's own sources; {recipe.data} has another")
    mixing = replace(task.train.augment, mixup=recipe.mixup, cutmix=recipe.cutmix)
    return replace(task, train=replace(task.train, augment=mixing))


def minimising(task: Task, loss: str) -> Task:
    """Return a task with the loss that a recipe names.

    Raises:
        RecipeError: it is of another kind of task.
    """
    if loss == "own":
        return task
    if task.kind != "classification":
        raise RecipeError(f"loss = {loss!r} is for classification; {task.name} is {task.kind}")
    return replace(task, loss=squared_hinge)


@contextmanager
def _blamed(key: str, value: str) -> Iterator[None]:
    """Say which key of the recipe an error is about."""
    try:
        yield
    except (FileError, UnknownNameError) as error:
        error.args = (f"{key} = {value!r}: {error}",)
        raise


def is_own(name: str) -> bool:
    """Say whether this names a function in a file, whose code runs when it is built."""
    return zoo.is_user_file(name)


def _own_size(name: str, data: str) -> int | None:
    """Return the image size that the model was made for, where the data is scaled to it; None: the data's own.

    Image folders have no size of their own. Parquet files do, and keep it unless the user's ``example()`` has another.
    """
    source = data.partition(":")[0]
    if source != "imagefolder" and not (source == "parquet" and is_own(name)):
        return None
    shape = zoo.input_shape(name)
    square = shape is not None and len(shape) == 3 and shape[1] == shape[2]
    return shape[1] if shape is not None and square else None


def _check_reads(model: nn.Module, name: str, task: Task) -> None:
    """Refuse data that the model does not run on, and say what each of them is.

    Raises:
        ModelError: the model does not run on the task's inputs.
    """
    try:
        with torch.no_grad():
            copy.deepcopy(model).eval()(task.example())
    except Exception as error:  # whatever the model's own code raises
        shape = zoo.input_shape(name)
        made = f"; it was made for {shape}" if shape else ""
        size = shape is not None and shape[0] == task.input_shape[0] and not task.name.startswith("digits")
        raise ModelError(
            f"{name} does not run on inputs of shape {task.input_shape}, which {task.name} gives{made}. "
            + (f"Try --image-size {shape[-1]}. " if size and shape else "")
            + f"The cause: {cause(error)}"
        ) from error


def absolute(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths, so that a run can be resumed from any folder."""
    steps = [
        step.model_copy(update={"teachers": tuple(map(_whole, step.teachers))}) if isinstance(step, Distill) else step
        for step in recipe.steps
    ]
    changes: dict[str, Any] = {"steps": tuple(steps)}
    if is_own(recipe.model):
        changes["model"] = _whole_function(recipe.model)
    if recipe.weights:
        changes["weights"] = _whole(recipe.weights)
    source, colon, path = recipe.data.partition(":")
    folder, mark, number = path.partition("#")  # of the lists of a source that has several
    if is_own(recipe.data):
        changes["data"] = _whole_function(recipe.data)
    elif colon and Path(path).expanduser().exists():
        changes["data"] = f"{source}:{_whole(path)}"
    elif colon and folder and Path(folder).expanduser().exists():
        changes["data"] = f"{source}:{_whole(folder)}{mark}{number}"
    return recipe.model_copy(update=changes)


def _whole(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _whole_function(name: str) -> str:
    """Return ``file.py:function``, or ``file.py`` alone, with the file's whole path."""
    file, colon, function = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
    return f"{_whole(file)}{colon}{function}"
