"""The pieces of work of a study, each a function of plain data alone, with a key: equal keys, the same result.

    key = SHA-256(kind, recipe with model, data and seed, options, contents of the files that it names, what it needs)

The code's own version is kept beside the key in the ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from .. import __version__
from ..recipes import Recipe
from ..recipes.named import absolute, is_own
from ..recipes.steps import Measure
from ..recipes.steps.base import Record
from .study import Subject

Cell = Mapping[str, str | int | float]  # where a result belongs: {"task": ..., "seed": ..., "arm": ...}
_APART = ("cli", "report")  # rooms of the code that no result depends on


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        kind: what is done; a name in ``work.WORK``.
        cell: where its result belongs.
        recipe: with model, data and seed.
        options: what else the work takes: what JSON can hold.
        needs: the job whose network it starts from.
        split: which split's metric is kept.
    """

    kind: str
    cell: Cell
    recipe: Recipe
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: Job | None = None
    split: str = "test"

    @cached_property
    def key(self) -> str:
        """Names the work, whatever code does it."""
        recipe = self.recipe.model_dump(mode="json")
        needs = self.needs.key if self.needs else ""
        named = {path: _digest(path) for path in _files(self.recipe)}
        text = json.dumps([self.kind, recipe, self.options, needs, self.split, named], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def payload(self, folder: Path, start: str) -> dict[str, Any]:
        """Return what a worker needs, wherever it runs.

        Args:
            folder: of the study.
            start: file in it of the network to start from; "" where the recipe names the weights or needs none.
        """
        recipe = absolute(self.recipe)
        if start:
            recipe = recipe.model_copy(update={"weights": str((folder / start).resolve())})
        data = recipe.model_dump(mode="json")
        named = {"kind": self.kind, "key": self.key, "split": self.split}
        return {**named, "recipe": data, "options": dict(self.options), "folder": str(folder.resolve())}

    def __str__(self) -> str:
        """Say what it is, in words."""
        return " ".join([self.kind, *map(str, self.cell.values())])


def recipe_of(subject: Subject, seed: int, steps: tuple[Any, ...]) -> Recipe:
    """Return a recipe for a subject; it measures without timing, since many run at once."""
    return Recipe(
        steps=(*steps, Measure(latency=False)),
        model=subject.model,
        weights=subject.weights,
        data=subject.data,
        image_size=subject.image_size,
        batch_size=subject.batch_size,
        seed=seed,
    )


def dense_job(subject: Subject, seed: int, split: str) -> Job:
    """Return the job that trains the dense network of a subject and a seed, which all others start from."""
    steps: tuple[Record, ...] = () if subject.weights else (subject.train,)
    return Job("dense", {"task": subject.name, "seed": seed}, recipe_of(subject, seed, steps), split=split)


@cache
def code_version() -> str:
    """Return the package's version with a hash of the code that results depend on."""
    digest = hashlib.sha256()
    for name, content in sorted(_sources(files("espalier"), "")):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _sources(place: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for one in place.iterdir():
        if one.is_dir() and prefix + one.name not in _APART:
            yield from _sources(one, f"{prefix}{one.name}/")
        elif one.name.endswith(".py"):
            yield prefix + one.name, one.read_bytes()


def _files(recipe: Recipe) -> Iterator[str]:
    """Yield the files that a recipe names: weights, and the user's own code."""
    if recipe.weights:
        yield recipe.weights
    for name in (recipe.model, recipe.data):
        if is_own(name):
            yield name.rpartition(":")[0]


def _digest(path: str) -> str:
    """Return the SHA-256 of a file; "" where it cannot be read, which its job will tell of."""
    place = Path(path).expanduser()
    try:
        state = place.stat()
        return _content(place, state.st_mtime_ns, state.st_size)
    except OSError:
        return ""


@cache
def _content(path: Path, written: int, size: int) -> str:
    """Return the SHA-256 of a file as it was at a time; many jobs ask for the same."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
