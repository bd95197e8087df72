"""Apply a surgery to a module: the one place where tensors and attributes are changed.

    model ──deepcopy, with every sliced tensor already in its memo──▶ copy ──set attributes──▶ result

The memo is what makes it cheap and whole: no dense copy of a sliced tensor is ever made, and whatever refers to the
tensor (a tied name, a list of an RNN's weights) follows, because deepcopy replaces objects by identity.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ...core import CutError, SetAttribute, Slice, Surgery
from .. import grids, masks, sharing
from ..recording.copying import deep_copy
from ..recording.skeleton import is_config
from ..recording.tensors import named_tensors


def operate(model: nn.Module, surgery: Surgery, *, inplace: bool = False) -> nn.Module:
    """Return ``model`` after ``surgery``, which is relative to the model as it is now.

    The result carries ``espalier_surgery``: all surgeries so far, composed, relative to the original architecture; and
    the model's masks, grids and sharing, sliced as its tensors are.
    Gradients are dropped; ties, ``requires_grad``, memory format and attributes of parameters stay.

    Args:
        model: any module; untouched unless ``inplace``.
        surgery: what to slice and which attributes to set.
        inplace: change ``model`` itself and return it; its Parameter objects stay the same objects, and its config
            objects become its own copies.

    Raises:
        CutError: the surgery does not fit the model; an in-place model is then still untouched.
    """
    check_surgery(model, surgery)
    previous = getattr(model, "espalier_surgery", None) or Surgery()
    sliced = _sliced_tensors(model, surgery)
    if inplace:
        result = _assign_tensors(model, sliced)
        _own_configs(result)
    else:
        result = _copy(model, sliced)
    for change in surgery.attributes.values():
        _replaced(result.get_submodule(change.module), change.path, change.value)
    result.espalier_surgery = previous.then(surgery)  # type: ignore[assignment]
    masks.carry(model, result, surgery)
    grids.carry(model, result, surgery)
    sharing.carry(model, result, surgery)
    return result


def check_surgery(model: nn.Module, surgery: Surgery) -> None:
    """Check that ``surgery`` fits ``model`` without touching it.

    Raises:
        CutError: a tensor, module or attribute is missing, a size differs, or a value is of another type.
    """
    tensors = named_tensors(model)
    right: set[tuple[int, int]] = set()  # (id of kept positions, size): dimensions of one group share theirs
    for one in surgery.slices.values():
        if one.tensor not in tensors:
            raise CutError(f"the model has no tensor {one.tensor!r}")
        _check_slice(one, tuple(tensors[one.tensor].shape))
        if (id(one.keep), one.size) not in right:
            _check_positions(one)
            right.add((id(one.keep), one.size))
    modules = dict(model.named_modules(remove_duplicate=False))
    for change in surgery.attributes.values():
        if change.module not in modules:
            raise CutError(f"the model has no module {change.module!r}")
        _check_attribute(modules[change.module], change)


def slice_tensor(tensor: Tensor, slices: Mapping[int, Slice]) -> Tensor:
    """Return the kept part of ``tensor``, ``slices`` by dimension; memory format and dtype stay."""
    result = tensor.detach()
    for dim, one in sorted(slices.items(), key=lambda item: len(item[1].keep) / max(item[1].size, 1)):
        result = result.index_select(dim, _index(one.keep, tensor.device))
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
        result = result.contiguous(memory_format=torch.channels_last)
    return result


@lru_cache(maxsize=64)  # the dimensions of one group share their positions
def _index(keep: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(keep, dtype=torch.long, device=device)


def _check_slice(one: Slice, shape: tuple[int, ...]) -> None:
    where = _where(one)
    if not 0 <= one.dim < len(shape):
        raise CutError(f"{where}: the tensor has {len(shape)} dimensions")
    if shape[one.dim] != one.size:
        raise CutError(f"{where}: the surgery expects size {one.size}, the model has {shape[one.dim]}")


def _check_positions(one: Slice) -> None:
    if not one.keep or min(one.keep) < 0 or max(one.keep) >= one.size or len(set(one.keep)) != len(one.keep):
        raise CutError(f"{_where(one)}: kept positions must be distinct, in range and at least one")


def _where(one: Slice) -> str:
    return f"tensor {one.tensor!r}, dimension {one.dim}"


def _sliced_tensors(model: nn.Module, surgery: Surgery) -> dict[int, Tensor]:
    """Return ``{id(old tensor): its kept part}``, with Parameters as Parameters."""
    by_tensor: dict[str, dict[int, Slice]] = {}
    for one in surgery.slices.values():
        if len(one.keep) < one.size or one.keep != tuple(range(one.size)):
            by_tensor.setdefault(one.tensor, {})[one.dim] = one
    tensors = named_tensors(model)
    return {id(tensors[name]): _like(tensors[name], slices) for name, slices in by_tensor.items()}


def _like(old: Tensor, slices: Mapping[int, Slice]) -> Tensor:
    new = slice_tensor(old, slices)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    elif old.is_leaf:
        new.requires_grad_(old.requires_grad)
    vars(new).update(vars(old))  # marks such as `_no_weight_decay` belong to the parameter, not to its size
    return new


def _assign_tensors(model: nn.Module, sliced: Mapping[int, Tensor]) -> nn.Module:
    """Give the sliced values to the tensors of ``model``; the tensor objects stay, so every reference follows."""
    for tensor in named_tensors(model).values():
        if id(tensor) in sliced:
            tensor.grad = None
            tensor.data = sliced[id(tensor)].data
    return model


def _own_configs(model: nn.Module) -> None:
    """Give a model copies of its config objects, shared among its modules as before: other models may hold them too."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if is_config(value):
                vars(module)[name] = copy.deepcopy(value, memo)


def _copy(model: nn.Module, sliced: Mapping[int, Tensor]) -> nn.Module:
    """Deep-copy ``model`` with the sliced tensors in place of the old ones."""
    memo: dict[int, Any] = dict(sliced)
    for tensor in _loose_tensors(model):
        # deepcopy refuses a tensor that autograd computed (a cache, weight norm's weight): keep its value only
        if not tensor.is_leaf and id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone()
    previous = getattr(model, "espalier_surgery", None)
    if previous is not None:
        memo[id(previous)] = previous  # frozen data; thousands of indices need no copy
    try:
        return deep_copy(model, memo)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise CutError(f"{type(model).__name__} cannot be deep-copied: {error}") from error


def _loose_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield tensors that modules hold outside parameters and buffers, in attributes or one container deep."""
    for module in model.modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_modules"):
                continue
            items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
            yield from (item for item in items if isinstance(item, Tensor))


def _check_attribute(module: nn.Module, change: SetAttribute) -> None:
    where = ".".join([change.module or "model", *map(str, change.path)])
    if not change.path:
        raise CutError(f"{where}: no attribute is named")
    owner: Any = module
    for step in change.path:
        owner = _child(owner, step, where)
    if _kind(owner) is None or _kind(owner) is not _kind(change.value):
        raise CutError(
            f"{where} is {type(owner).__name__} and cannot become {type(change.value).__name__} {change.value!r}"
        )


def _kind(value: object) -> type | None:
    """Return int, float, bool or tuple, or None for anything else; a tuple holds these only."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, tuple):
        return tuple if all(_kind(item) for item in value) else None
    return next((kind for kind in (int, float) if isinstance(value, kind)), None)


def _child(owner: Any, step: str | int, where: str) -> Any:
    """Return the attribute, item or element of ``owner`` that ``step`` names; never runs a property."""
    with suppress(KeyError, IndexError, TypeError):
        if isinstance(owner, dict):
            return owner[step]
        if isinstance(owner, list | tuple) and isinstance(step, int) and step >= 0:
            return owner[step]
        if isinstance(step, str):
            return vars(owner)[step]
    raise CutError(f"the model has no attribute {where}")


def _replaced(owner: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Return ``owner`` with ``value`` at ``path``: the same object where it can change, a new one for a tuple."""
    if not path:
        return type(owner)(value) if isinstance(owner, torch.Size) else value
    step, rest = path[0], path[1:]
    child = _child(owner, step, str(step))
    new = _replaced(child, rest, value)
    if new is child:
        return owner
    if isinstance(owner, tuple):
        return getattr(owner, "_make", type(owner))([new if i == step else item for i, item in enumerate(owner)])
    # straight into an object's dictionary: the name exists, and no `__setattr__` of a config may refuse or redirect it
    holder: Any = owner if isinstance(owner, list | dict) else vars(owner)
    holder[step] = new
    return owner
