"""``espalier demo`` and ``espalier compress``: the recipe, the table and the report."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from .. import api
from ..recipes.folder import new_folder
from ..recipes.settings import Settings
from ..tasks import Task, load_task
from ..zoo import load_weights
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
    task = load_task(chosen.data, batch_size=settings.batch_size, seed=settings.seed, image_size=chosen.image_size)
    model = _seeded_model(chosen.model, task, settings.seed, pretrained=chosen.pretrained)
    if chosen.weights is not None:
        load_weights(model, chosen.weights)
    _run(model, task, settings, new_folder(chosen.out, chosen.model))


def _seeded_model(name: str, task: Task, seed: int, *, pretrained: bool = False) -> nn.Module:
    """Build the model with an output a class; the user's own function decides that for itself."""
    torch.manual_seed(seed)
    own = name.rpartition(":")[0].endswith(".py")
    return api.model(name, pretrained=pretrained, classes=None if own else task.classes)


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
