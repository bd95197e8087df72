"""Grids: which weights lie on a grid, and which inputs are put on one, by name; data that a model carries.

    grids ──put_grids_──▶ model whose inputs are quantized as it runs, and whose weights are step x integer
                            │ deepcopy, es.save, es.encode, checkpoints
                           cut ──▶ smaller model, with the steps of the channels that it kept

The model stays what it is: an ordinary module whose weights are floating-point numbers. A tied weight has one grid,
under its first name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from ..core import GridError, UnknownNameError
from .carried_grids import Grids, carry, grids_of
from .input_hooks import Dynamic, Grid, Input, Sign, check_put, put_, set_aside_
from .kinds import check_model
from .recording.tensors import aliases, named_tensors
from .weight_grids import WeightGrid, step_type

__all__ = [
    "Dynamic",
    "Grid",
    "Grids",
    "Input",
    "Sign",
    "WeightGrid",
    "carry",
    "grids_of",
    "misfits",
    "off_grid",
    "put_grids_",
    "quantize_inputs_",
    "unquantize_",
]


def quantize_inputs_(model: nn.Module, inputs: Mapping[str, Input]) -> nn.Module:
    """Quantize the inputs of modules from now on, in place; those of other modules stay as they are.

    Args:
        model: any module at rest (not behind a wrapper, not in shards).
        inputs: ``{module path: Grid, Dynamic or Sign}``.

    Raises:
        KindError: the model is none.
        GridError: the grids do not fit; the message names all mistakes, and the model is untouched.
    """
    own = grids_of(model)
    return put_grids_(model, Grids({**own.inputs, **inputs}, own.weights))


def put_grids_(model: nn.Module, grids: Grids) -> nn.Module:
    """Let a model carry grids, in place of those that it carries: its inputs are quantized from now on.

    Its weights are left as they are: they must lie on their grids already, exactly.

    Raises:
        KindError: the model is none.
        GridError: the grids do not fit; the message names all mistakes, and the model is untouched.
    """
    check_model("put_grids_", model)
    wrong = list(misfits(grids, model)) or list(off_grid(grids, model))
    if wrong:
        raise GridError(f"these grids do not fit this {type(model).__name__}: {'; '.join(wrong)}")
    first, modules = aliases(model), dict(model.named_modules())
    for path, made in grids.inputs.items():
        check_put(modules[path], made)
    set_aside_(model)
    for path, made in grids.inputs.items():
        put_(modules[path], made)
    model.espalier_grids = Grids(grids.inputs, {first.get(n, n): one for n, one in grids.weights.items()})  # type: ignore[assignment]
    return model


def unquantize_(model: nn.Module) -> nn.Module:
    """Take a model's grids off, in place: inputs are what they were, weights stay as they are."""
    if hasattr(model, "espalier_grids"):
        del model.espalier_grids
    return set_aside_(model)


def misfits(grids: Grids, model: nn.Module) -> Iterator[str]:
    """Yield every way in which grids do not fit a model's names, shapes and types."""
    modules = dict(model.named_modules())
    for path in grids.inputs:
        if path not in modules:
            yield str(UnknownNameError("module", path, filter(None, modules)))
    tensors, first = named_tensors(model), aliases(model)
    for name, grid in grids.weights.items():
        tensor = tensors.get(first.get(name, name))
        if tensor is None or not tensor.is_floating_point():
            yield str(UnknownNameError("weight", name, (n for n, t in tensors.items() if t.is_floating_point())))
        elif grid.step.dtype != step_type(tensor.dtype):
            yield f"{name!r} is of {tensor.dtype}, its steps of {grid.step.dtype}"
        elif grid.step.dim() and tensor.shape[grid.axis : grid.axis + 1] != grid.step.shape:
            yield f"{name!r} has shape {tuple(tensor.shape)}, and {len(grid.step)} steps of dimension {grid.axis}"


def off_grid(grids: Grids, model: nn.Module) -> Iterator[str]:
    """Yield the weights that do not lie on the grids that fit them."""
    tensors, first = named_tensors(model), aliases(model)
    for name, grid in grids.weights.items():
        if not grid.holds(tensors[first.get(name, name)]):
            yield f"{name!r} does not lie on its grid"
