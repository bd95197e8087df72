"""``espalier demo``, ``compress``, ``run`` and ``resume``: the recipe, the table and the report."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from .. import api
from ..engines import current, leads, restarted
from ..graph.recording.running import fixed_threads
from ..recipes import Recipe, Settings, checked, named, read
from ..recipes.folders.folder import RECIPE, new_folder
from ..recipes.folders.ledger import record
from ..recipes.folders.located import located
from ..recipes.run import Result, interrupted
from . import options
from .answer import Answer
from .ask import agreed
from .stages import stages_table

_DEMO = Settings(
    macs=0.3, rounds=3, train_epochs=15, round_epochs=3, epochs=17, batch_size=64, precision="float32"
)  # the same bits on every processor


def demo(chosen: options.Demo) -> Answer:
    """Train, compress, save, reload and measure the zoo's ``digits_cnn``."""
    settings = _DEMO.model_copy(update={"macs": chosen.macs, "seed": chosen.seed})
    recipe = settings.recipe().model_copy(update={"model": "espalier:digits_cnn", "data": "digits"})
    with fixed_threads(1):  # as fast on a network of this size, whatever else the machine does, and with one result
        return _start(recipe, chosen, "demo")


def compress(chosen: options.Compress) -> Answer:
    """Compress the user's choice of model on the user's choice of data."""
    names = {"model": chosen.model, "data": chosen.data, "pretrained": chosen.pretrained}
    more = {"weights": chosen.weights or "", "image_size": chosen.image_size}
    recipe = chosen.settings().recipe().model_copy(update={**names, **more})
    return _start(recipe, chosen, chosen.model)


def run(chosen: options.Run) -> Answer:
    """Do what a recipe file says."""
    given = {name: getattr(chosen, name) for name in ("model", "weights", "data", "engine", "seed")}
    recipe = checked({**dict(read(chosen.recipe)), **{k: v for k, v in given.items() if v is not None}})
    return _start(recipe, chosen, Path(chosen.recipe).stem)


def resume(chosen: options.Resume) -> Answer:
    """Go on with a run."""
    folder = located(chosen.run)
    trusted = chosen.trust or agreed(folder, read(folder / RECIPE))
    try:
        result = api.resume(folder, trusted=trusted)
    finally:
        if leads():
            record(folder.resolve().parent)
    return _answer(result, folder)


def _start(recipe: Recipe, chosen: options.Demo | options.Compress | options.Run, name: str) -> Answer:
    """Run a recipe in a new folder; api.compress leaves a report whatever happens.

    Where torchrun starts the processes anew, the run goes on in the folder that it has.
    """
    if not restarted():
        new_folder(chosen.out, name, chosen.name)  # a name that is taken is told before anything is read
    task = named.load(recipe)
    model = named.build(recipe, task)
    recipe = named.absolute(recipe)

    def place() -> str:
        going = interrupted(Path(chosen.out), recipe) if restarted() else None
        return str(going or new_folder(chosen.out, name, chosen.name))

    folder = Path(current(recipe.engine).first(place))
    try:
        result = api.compress(model, task, recipe, folder=folder)
    except KeyboardInterrupt:
        if leads() and folder.exists():
            print(f"espalier resume {shlex.quote(str(folder))} goes on", file=sys.stderr)
        raise
    finally:
        if leads() and folder.exists():
            print(f"run folder: {folder}", file=sys.stderr)
            record(folder.parent)
    return _answer(result, folder)


def _answer(result: Result, folder: Path) -> Answer:
    report = folder / "report.html"
    data = {
        "folder": str(folder),
        "report": str(report),
        "ratios": result.comparison.to_data()["ratios"],
        "run": json.loads(result.run.to_json()),
    }
    words = filter(None, (result.run.proof, *result.run.notes))
    table = [stages_table(result.run)] if result.run.coded else []
    return Answer(data, (str(result.comparison), *table, *words, f"report: {report}"))
