"""The result of a run, where its recipe had it saved."""

from __future__ import annotations

from pathlib import Path

from ..core import FileError
from ..recipes import Recipe
from ..recipes.folders.folder import RECIPE, read_run
from ..recipes.folders.owner import status_of
from ..recipes.steps import Save

_RESULT = "model.safetensors"


def saved(folder: Path, recipe: Recipe) -> Path:
    """Return the file of a run's result.

    Raises:
        FileError: it is not there, and why, and what brings it.
    """
    result = folder / next((step.name for step in recipe.steps if isinstance(step, Save)), _RESULT)
    if result.exists():
        return result
    status = status_of(folder, read_run(folder).status)
    if status == "finished":
        raise FileError(f"{result} is missing: espalier run {folder / RECIPE} makes it again, in a new folder")
    raise FileError(f"{folder}: the run is {status} and has saved no result: espalier resume {folder} goes on")
