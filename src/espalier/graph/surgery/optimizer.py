"""Carry an optimizer across a cut: its moments are sliced with the weights.

    original ──before──▶ model ──between──▶ small        surgeries hold indices of the original: between is derived
                           │                  │
                       optimizer ──slice──▶ optimizer    state of the parameter's shape is sliced, scalars stay

Nothing is guessed: a state that is neither of the parameter's shape nor a scalar is refused.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...core import CutError, Slice, Surgery
from ..kinds import check_carried
from ..recording.tensors import named_tensors
from .operate import slice_tensor

Slices = Mapping[int, Slice]  # of one tensor, by dimension


def carry_optimizer(
    optimizer: Optimizer, model: nn.Module, small: nn.Module, *, before: Surgery | None = None
) -> Optimizer:
    """Return a new optimizer of the same class for ``small``, with the moments sliced as the weights were.

    Groups and their options stay, parameters are matched by name, and parameters that are not the model's (a loss's
    own) are carried as they are. For optimizers whose state is a number a weight (SGD, Adam and its kin, RMSprop,
    Adagrad, ...) the next steps of the surviving weights are those of the uncut model with the removed units masked.
    A scheduler holds the old optimizer: build it anew.

    After an in-place cut give the same model twice, and say what had been done to it before that cut::

        before = model.espalier_surgery         # leave this out where it was the first cut
        cut_(model, graph, plan)
        optimizer = carry_optimizer(optimizer, model, model, before=before)

    *Differs* from training the masked model: where a cut rescales queries (an attention scale that follows the head
    dimension) the moments are sliced, not rescaled.

    Args:
        optimizer: holds ``model``'s parameters; untouched.
        model: what the optimizer was made for.
        small: what ``cut`` made of it; or ``model`` itself after ``cut_``.
        before: the surgery that ``model`` already had when the optimizer's state was made; read from ``model`` unless
            ``small`` is the same module.

    Raises:
        KindError: an argument is of another kind.
        CutError: the optimizer is not for ``model``, ``small`` was not cut from it, or a state cannot be sliced.
    """
    check_carried(optimizer, model, small)
    known = Surgery() if small is model else _surgery(model)
    slices = between(before or known, _surgery(small))
    name = type(optimizer).__name__
    if slices and isinstance(optimizer, torch.optim.LBFGS):
        raise CutError(f"{name} keeps one flat state for all parameters, which cannot be sliced: start a new one")
    new = _matched(optimizer, model, small, slices)
    carried = _rebuilt(optimizer, {old: parameter for old, (parameter, _) in new.items()})
    for key, state in optimizer.state.items():
        if isinstance(key, Tensor) and key in new:
            parameter, own = new[key]
            shape = _shape_before(parameter, own)
            carried.state[parameter] = {k: _carried(v, shape, own, f"{name}'s {k!r}") for k, v in state.items()}
        else:
            carried.state[key] = copy.deepcopy(state)
    return carried


def _surgery(model: nn.Module) -> Surgery:
    return getattr(model, "espalier_surgery", None) or Surgery()  # type: ignore[return-value]


def between(before: Surgery, after: Surgery) -> dict[str, dict[int, Slice]]:
    """Return ``{tensor: {dim: slice}}`` that leads from ``before``'s result to ``after``'s, both of one original.

    Raises:
        CutError: ``after`` keeps what ``before`` removed.
    """
    found: dict[str, dict[int, Slice]] = {}
    for key in {**before.slices, **after.slices}:
        one = after.slices.get(key)
        had = before.slices[key].keep if key in before.slices else tuple(range(after.slices[key].size))
        place = {position: i for i, position in enumerate(had)}
        if one is None or not place.keys() >= set(one.keep):
            raise CutError(f"the small model was not cut from this one: it keeps positions of {key[0]!r} that are gone")
        if one.keep != had:
            found.setdefault(one.tensor, {})[one.dim] = Slice(*key, tuple(place[p] for p in one.keep), len(had))
    return found


def _matched(
    optimizer: Optimizer, model: nn.Module, small: nn.Module, slices: Mapping[str, Slices]
) -> dict[Tensor, tuple[Tensor, Slices]]:
    """Return ``{old parameter: (new parameter, its slices)}`` for the model's parameters in the optimizer."""
    names = {tensor: name for name, tensor in named_tensors(model).items()}
    targets = named_tensors(small)
    found: dict[Tensor, tuple[Tensor, Slices]] = {}
    for old in (p for group in optimizer.param_groups for p in group["params"] if p in names):
        name = names[old]
        new, own = targets.get(name), slices.get(name, {})
        if new is None or (new is not old and tuple(old.shape) != _shape_before(new, own)):
            raise CutError(
                f"{name!r} of the small model does not fit: {tuple(old.shape)} became "
                f"{'nothing' if new is None else tuple(new.shape)}, which its surgery does not say"
            )
        found[old] = new, own
    if not found:
        raise CutError(
            f"this {type(optimizer).__name__} holds no parameter of the model: give the model that it was made for, "
            "unwrapped (or, after cut_, the same model twice)"
        )
    return found


def _shape_before(tensor: Tensor, slices: Slices) -> tuple[int, ...]:
    return tuple(slices[d].size if d in slices else n for d, n in enumerate(tensor.shape))


def _rebuilt(optimizer: Optimizer, new: Mapping[Tensor, Tensor]) -> Optimizer:
    """Return an optimizer without state: same class, same groups and options, other parameters."""
    options = [{k: _cloned(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    groups = [{"params": [new.get(p, p) for p in group["params"]]} for group in optimizer.param_groups]
    accepted = inspect.signature(type(optimizer)).parameters
    defaults = {k: _cloned(v) for k, v in optimizer.defaults.items() if k in accepted}
    try:
        made = type(optimizer)(groups, **defaults)
    except (TypeError, ValueError) as error:
        raise CutError(f"{type(optimizer).__name__} cannot be made from its own options: {error}") from error
    made.defaults = {k: _cloned(v) for k, v in optimizer.defaults.items()}
    for group, own in zip(made.param_groups, options, strict=True):
        parameters = group["params"]
        group.clear()
        group.update({"params": parameters, **own})
    return made


def _carried(value: Any, shape: tuple[int, ...], slices: Slices, where: str) -> Any:
    """Return one entry of a parameter's state after the cut; ``shape`` is the parameter's before it."""
    if isinstance(value, list | tuple):
        return type(value)([_carried(item, shape, slices, where) for item in value])
    if isinstance(value, dict):
        return {key: _carried(item, shape, slices, where) for key, item in value.items()}
    if not isinstance(value, Tensor) or not slices or value.numel() == 1:
        return _cloned(value)
    # a factor of the moments (Adafactor's rows) is exact only where what it was averaged over is whole
    same = value.dim() == len(shape)
    if not same or any(n != shape[d] and (n != 1 or d in slices) for d, n in enumerate(value.shape)):
        raise CutError(
            f"{where} has shape {tuple(value.shape)} for {next(iter(slices.values())).tensor!r}, which had {shape} "
            "before the cut: it cannot be sliced, start a new optimizer"
            " (after a second cut_, give the surgery before it as before=)"
        )
    return slice_tensor(value, slices)


def _cloned(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
