"""An oracle that shares nothing with the engine but its groups: zeros in the dense network instead of missing units.

A removed unit's positions are filled with a vanishing number in every tensor where the group appears. What a kept
position computes is then what the cut network computes, provided that norm layers count kept positions only, which
``KeptStatistics`` sees to. The number is not exactly zero, so that weights that are divided by their norm stay finite.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from .base import Pattern

VANISHING = 1e-100


def call(model: nn.Module, example: Any) -> Any:
    """Run a model on an example as ``trace`` reads it: a dict is keywords, a tuple positionals."""
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def outputs(model: nn.Module, example: Any) -> list[Tensor]:
    """Return all output tensors, without gradients; what the model writes into its buffers is put back."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        found = [leaf.clone() for leaf in tree_leaves(call(model, example)) if isinstance(leaf, Tensor)]
        for name, buffer in before.items():
            model.get_buffer(name).copy_(buffer)
    return found


def build(pattern: Pattern, seed: int = 0) -> tuple[nn.Module, Any]:
    """Return the pattern's network (eval mode, float64, no constant weights) and its example, the same for a seed."""
    torch.manual_seed(seed)
    model, example = pattern.make().double().eval(), pattern.example()
    liven_(model)
    return model, tree_map(lambda t: t.double() if t.is_floating_point() else t, example)


def liven_(model: nn.Module) -> None:
    """Replace constant parameters and running statistics by random values: a zero layer scale would hide errors."""
    norms = [(m, name) for m in model.modules() for name in ("running_mean", "running_var", "mean", "var")]
    statistics = [getattr(m, name) for m, name in norms if isinstance(getattr(m, name, None), Tensor)]
    with torch.no_grad():
        for tensor in [*model.parameters(), *statistics]:
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.uniform_(0.5, 1.5)


def counted_plan(graph: Any, chosen: Iterable[str], seed: int, ratio: float = 0.5) -> dict[str, tuple[int, ...]]:
    """Return random kept units for ``ratio`` of every chosen group, made feasible; unchosen groups are held whole."""
    chosen, sizes = set(chosen), dict(graph.sizes)
    wanted = {name: max(1, round(size * ratio)) if name in chosen else size for name, size in sizes.items()}
    counts = {**wanted, **graph.feasible(wanted, held=tuple(set(sizes) - chosen))}
    draw = random.Random(seed)
    keep = {name: tuple(sorted(draw.sample(range(sizes[name]), counts[name]))) for name in sizes}
    return {name: units for name, units in keep.items() if len(units) < sizes[name]}


def free_of_statistics(graph: Any) -> list[str]:
    """Return the groups over which no statistic is taken and that no tie binds to one that has."""
    barred = {name for name, group in graph.groups.items() if group.statistics}
    spread = True
    while spread:
        bound = [{tie.derived, *tie.powers} for tie in graph.ties]
        more = {name for names in bound if names & barred for name in names} - barred
        barred |= more
        spread = bool(more)
    return [name for name in graph.groups if name not in barred]


def mask_(model: nn.Module, groups: Mapping[str, Any], keep: Mapping[str, Sequence[int]]) -> None:
    """Fill the positions of every removed unit with a vanishing number, wherever its group appears."""
    with torch.no_grad():
        for name, units in keep.items():
            removed = sorted(set(range(groups[name].size)) - set(units))
            for slot in groups[name].slots:
                tensor = attrgetter(slot.tensor)(model)
                if tensor.is_floating_point():
                    places = torch.as_tensor(slot.positions)[removed].reshape(-1).long()
                    tensor.index_fill_(slot.dim, places, VANISHING)


class KeptStatistics(TorchFunctionMode):
    """Layer, group and RMS norms count a position only where its weight has not vanished."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = {F.layer_norm: _layer_norm, F.group_norm: _group_norm, F.rms_norm: _rms_norm}.get(func)
        result = own(*args, **(kwargs or {})) if own else None
        return func(*args, **(kwargs or {})) if result is None else result


def _vanished(weight: Tensor | None) -> bool:
    return weight is not None and bool((weight == VANISHING).any())


def _mean(x: Tensor, kept: Tensor, dims: list[int]) -> Tensor:
    kept = kept.expand_as(x).to(x.dtype)
    return (x * kept).sum(dims, keepdim=True) / kept.sum(dims, keepdim=True).clamp(min=1)


def _layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
    if not _vanished(weight):
        return None
    kept, dims = weight != VANISHING, list(range(-len(shape), 0))
    x = x - _mean(x, kept, dims)
    x = x / (_mean(x**2, kept, dims) + eps).sqrt() * weight
    return x if bias is None else x + bias


def _rms_norm(x, shape, weight=None, eps=None):
    if not _vanished(weight):
        return None
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return x / (_mean(x**2, weight != VANISHING, list(range(-len(shape), 0))) + eps).sqrt() * weight


def _group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    if not _vanished(weight):
        return None
    parts, column = x.unflatten(1, (num_groups, -1)).flatten(3), (1, -1, *[1] * (x.dim() - 2))
    kept = (weight != VANISHING).view(1, num_groups, -1, 1)
    parts = parts - _mean(parts, kept, [2, 3])
    parts = parts / (_mean(parts**2, kept, [2, 3]) + eps).sqrt()
    return parts.reshape(x.shape) * weight.view(column) + bias.view(column)


def masked_outputs(model: nn.Module, groups: Mapping[str, Any], keep: Mapping[str, Sequence[int]], example: Any) -> Any:
    """Mask ``model`` (which is changed) and return its outputs with statistics over kept positions."""
    mask_(model, groups, keep)
    with KeptStatistics():
        return outputs(model, example)


def close(first: Sequence[Tensor], second: Sequence[Tensor], tolerance: float = 1e-9) -> bool:
    """Whether two lists of outputs have the same shapes and, relative to their magnitude, the same values."""
    if len(first) != len(second) or any(a.shape != b.shape for a, b in zip(first, second, strict=True)):
        return False
    return all(
        bool(((a - b).abs() <= tolerance * (1 + b.abs().max())).all()) if a.numel() else True
        for a, b in zip(first, second, strict=True)
    )
