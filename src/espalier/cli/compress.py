"""``espalier demo`` and ``espalier compress``: the recipe, the table and the report."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from torch import nn

from .. import api
from ..core import ModelError, cause
from ..recipes.folder import new_folder
from ..recipes.settings import Settings
from ..tasks import Task, load_task
from ..zoo import input_shape, is_user_file, load_weights, takes_classes
from .options import Compress, Demo

_DEMO_MODEL, _DEMO_DATA = "espalier:digits_cnn", "digits"


def demo(chosen: Demo) -> None:
    """Train, compress, save, reload and measure the zoo's ``digits_cnn``."""
    settings = Settings(
        macs=chosen.macs, rounds=3, train_epochs=15, round_epochs=3, epochs=20, batch_size=64, seed=chosen.seed
    )
    task = load_task(_DEMO_DATA, batch_size=settings.batch_size, seed=settings.seed)
    _run(_seeded_model(_DEMO_MODEL, task, settings.seed), task, settings, new_folder(chosen.out, "demo"))


def compress(chosen: Compress) -> None:
    """Compress the user's choice of model on the user's choice of data."""
    settings = chosen.settings
    image_size = chosen.image_size or _own_size(chosen.model, chosen.data)
    task = load_task(chosen.data, batch_size=settings.batch_size, seed=settings.seed, image_size=image_size)
    model = _seeded_model(chosen.model, task, settings.seed, pretrained=chosen.pretrained)
    if chosen.weights is not None:
        load_weights(model, chosen.weights)
    _check_reads(model, chosen.model, task)
    _run(model, task, settings, new_folder(chosen.out, chosen.model))


def _seeded_model(name: str, task: Task, seed: int, *, pretrained: bool = False) -> nn.Module:
    """Build the model with an output a class; the user's own function decides that for itself unless it is asked."""
    torch.manual_seed(seed)
    return api.model(name, pretrained=pretrained, classes=task.classes if takes_classes(name) else None)


def _own_size(name: str, data: str) -> int | None:
    """Return the image size that the model was made for, where the data is scaled to it; None: the data's own.

    Image folders have no size of their own. Parquet files do, and keep it unless the user's ``example()`` has another.
    """
    source = data.partition(":")[0]
    if source != "imagefolder" and not (source == "parquet" and is_user_file(name)):
        return None
    shape = input_shape(name)
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
        shape = input_shape(name)
        made = f"; it was made for {shape}" if shape else ""
        size = shape is not None and shape[0] == task.input_shape[0] and not task.name.startswith("digits")
        raise ModelError(
            f"{name} does not run on inputs of shape {task.input_shape}, which {task.name} gives{made}. "
            + (f"Try --image-size {shape[-1]}. " if size and shape else "")
            + f"The cause: {cause(error)}"
        ) from error


def _run(model: nn.Module, task: Task, settings: Settings, folder: Path) -> None:
    """Run the recipe in a new folder and print before and after; api.compress leaves a report whatever happens."""
    try:
        result = api.compress(model, task, settings, folder=folder)
    finally:
        if folder.exists():
            print(f"run folder: {folder}", file=sys.stderr)
    print(result.comparison)
    for line in filter(None, (result.run.proof, *result.run.notes)):
        print(line)
    print(f"report: {folder / 'report.html'}")
