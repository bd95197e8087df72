"""A network before and after, from a run folder or from a model's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .. import api, criteria
from ..core import Budget, FileError
from ..graph import cut, load, trace
from ..measure.layers import example_of
from ..recipes import named, read
from ..recipes.folders.folder import RECIPE, read_run
from ..selection import plan
from .ask import agreed
from .saved import saved


@dataclass(frozen=True, eq=False)
class Pair:
    """Two networks and an input of both.

    Attributes:
        macs_ratio: after / before, None where it is not known.
        inputs: of the training split, in batches, to calibrate on; none where there is no data.
    """

    dense: nn.Module
    small: nn.Module
    example: Any
    macs_ratio: float | None
    inputs: tuple[Any, ...] = ()


def from_run(folder: Path, batch: int, *, trust: bool, samples: int = 128) -> Pair:
    """Load the dense network and the result of a run, and so many inputs of its training split.

    Raises:
        FileError: the run has no result yet, or the folder was written elsewhere and names code.
    """
    run, recipe = read_run(folder), read(folder / RECIPE)
    result = saved(folder, recipe)
    if not trust and not agreed(folder, recipe):
        raise FileError(f"{folder} was not written here and names code: look at that file, and then say --trust")
    task = named.load(recipe)
    original = named.build(recipe, task)
    trained = folder / "dense.safetensors"
    dense = load(trained, original) if trained.exists() else original
    before, after = run.before.macs, run.after.macs
    ratio = after / before if before and after is not None else None
    inputs = task.example(samples + samples // 4)  # a part is kept to compare on
    return Pair(dense.eval(), load(result, original).eval(), task.example(batch), ratio, (inputs,))


def from_name(name: str, batch: int, macs: float) -> Pair:
    """Build a model and cut it by magnitude to a ratio of its MACs."""
    model = api.model(name).eval()
    graph = trace(model, api.default_example(model, name))
    chosen = plan(graph, criteria.magnitude(model, graph), Budget(macs=macs))
    small = cut(model, graph, chosen)
    return Pair(model, small, example_of(graph, batch), graph.plan_cost(chosen).macs / graph.cost().macs)
