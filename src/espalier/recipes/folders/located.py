"""Run folders by what a user says: the folder, a file in it, or something else, which the message then names."""

from __future__ import annotations

from pathlib import Path

from ... import zoo
from ...core import FileError
from .folder import RUN

_RECIPES = (".toml", ".yaml", ".yml", ".json")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def located(said: str | Path) -> Path:
    """Return the run folder that is meant: a folder with ``run.json`` in it, or the one that a file lies in.

    Raises:
        FileError: there is none; the message says what a run folder is, and which command takes what was given.
    """
    path = Path(said)
    folder = path.parent if path.is_file() else path
    if (folder / RUN).is_file():
        return folder
    what = f"{said} is not a run folder: espalier compress, run and demo write one, with {RUN} in it"
    raise FileError(". ".join(filter(None, (what, _hint(said)))))


def names_model(said: str | Path) -> bool:
    """Say whether this is written as a model's name is."""
    text = str(said)
    return zoo.is_user_file(text) or (":" in text and not Path(text).exists())


def _hint(said: str | Path) -> str:
    path = Path(said)
    if path.is_dir():
        held = sorted(found.parent.name for found in path.glob(f"*/{RUN}"))
        return f"It holds runs: espalier runs --out {said} lists them; the last is {path / held[-1]}" if held else ""
    if names_model(said):
        return f"It looks like a model: espalier compress {said} --data SOURCE --macs 0.5 begins a run"
    if path.suffix in _RECIPES:
        return f"It looks like a recipe: espalier run {said} does what it says"
    if path.suffix in _WEIGHTS:
        return f"It looks like a file of weights: espalier compress MODEL --weights {said} --data SOURCE begins a run"
    if (Path("runs") / path / RUN).is_file():
        return f"Did you mean {Path('runs') / path}?"
    return "There is no such folder; espalier runs lists those that there are"
