"""How criteria see a group: every parameter it appears in, as one row of weights a unit.

    tensor (d0, ..., dn)  --movedim(slot.dim, 0)[slot.positions]-->  (units, k, rest)  -->  (units, k * rest)

Running statistics and other buffers are not weights: only parameters are seen, under any of their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...core import Group, KindError, ModelError, Slot

if TYPE_CHECKING:
    from ...graph import Graph

Scores = dict[str, Tensor]
Criterion = Callable[..., Scores]


def slot_parameters(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Return ``{tensor name: parameter}`` for every slot of every group that is a parameter of ``model``.

    Raises:
        ModelError: none is there or one is shaped otherwise (the model is not the one that was traced), or the
            weights are on the meta device and have no values.
    """
    if not isinstance(model, nn.Module) or not hasattr(graph, "groups"):
        raise KindError(
            f"a criterion takes a model and its graph, not {type(model).__name__} and {type(graph).__name__}: "
            "es.trace(model, example) makes the graph"
        )
    given = dict(model.named_parameters(remove_duplicate=False))
    wanted = dict.fromkeys(slot.tensor for group in graph.groups.values() for slot in group.slots)
    found = {name: given[name].detach() for name in wanted if name in given}
    if wanted and not found:
        raise ModelError(f"this model is not the one that was traced: it has no parameter {next(iter(wanted))!r}")
    for name, tensor in found.items():
        if tensor.is_meta:
            raise ModelError(f"{name!r} is on the meta device and has no values to score; use the random criterion")
        traced = tuple(graph.shapes.get(name, tensor.shape))
        if tuple(tensor.shape) != traced:
            raise ModelError(
                f"this model is not the one that was traced: {name!r} is {tuple(tensor.shape)}, traced as {traced}; "
                "trace the model again"
            )
    return found


def finite(scores: Scores, graph: Graph, tensors: Mapping[str, Tensor]) -> Scores:
    """Return scores that hold no NaN.

    Raises:
        ModelError: one does; names the weights that are not finite, or too large for a sum in their precision.
    """
    for name, own in scores.items():
        if bool(own.isnan().any()):
            weights = [slot.tensor for slot in graph.groups[name].slots if slot.tensor in tensors]
            spoiled = [one for one in dict.fromkeys(weights) if not bool(tensors[one].isfinite().all())]
            if spoiled:
                raise ModelError(f"{', '.join(map(repr, spoiled[:3]))}: weights are NaN or infinite and have no score")
            largest = max(weights, key=lambda one: float(tensors[one].abs().max()))
            size = float(tensors[largest].abs().max())
            raise ModelError(
                f"{largest!r} holds weights as large as {size:.0e}, whose score overflows: scale them down"
            )
    return scores


def slices(tensors: Mapping[str, Tensor], group: Group) -> Iterator[tuple[Slot, Tensor]]:
    """Yield ``(slot, matrix)`` for every slot of ``group`` that is in ``tensors`` (see ``slot_parameters``).

    The matrix has shape (units, rest) and is at least float32.
    """
    for slot in group.slots:
        if slot.tensor in tensors:
            tensor = tensors[slot.tensor]
            where = positions(slot, tensor.device)
            yield slot, widened(tensor).movedim(slot.dim, 0)[where].reshape(where.shape[0], -1)


def fold(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    pointwise: Callable[[Tensor], Tensor],
    combine: Callable[..., Tensor] = torch.sum,
) -> dict[str, list[tuple[Slot, Tensor]]]:
    """Measure every unit in every slot without gathering its weights.

    Each tensor is read once, whatever the number of groups that share it (concatenations would be quadratic
    otherwise): ``combine`` (``torch.sum`` or ``torch.amax``) folds ``pointwise(tensor)`` to one number a position
    of each dimension in use, then those of a unit's positions.

    Returns:
        ``{group: [(slot, numbers of shape (units,)), ...]}`` in slot order.
    """
    used: dict[str, set[int]] = {}
    for group in graph.groups.values():
        for slot in group.slots:
            if slot.tensor in tensors:
                used.setdefault(slot.tensor, set()).add(slot.dim)
    folded: dict[tuple[str, int], Tensor] = {}
    for name, dims in used.items():
        numbers = pointwise(widened(tensors[name]))
        kernel = tuple(dim for dim in range(numbers.ndim) if dim not in dims)
        numbers = combine(numbers, kernel, keepdim=True) if kernel else numbers
        for dim in dims:
            others = tuple(other for other in dims if other != dim)
            folded[name, dim] = (combine(numbers, others, keepdim=True) if others else numbers).flatten()
    return {
        name: [
            (slot, combine(folded[slot.tensor, slot.dim][positions(slot, tensors[slot.tensor].device)], (1,)))
            for slot in group.slots
            if slot.tensor in tensors
        ]
        for name, group in graph.groups.items()
    }


def positions(slot: Slot, device: torch.device) -> Tensor:
    """Return ``slot.positions`` as an index tensor of shape (units, k)."""
    return torch.from_numpy(np.ascontiguousarray(slot.positions, dtype=np.int64)).to(device)


def widened(tensor: Tensor) -> Tensor:
    """Return half precision as float32 (sums of squares overflow in it); others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def elements(slots: list[Slot], tensors: Mapping[str, Tensor]) -> int:
    """Return how many weights one unit holds over ``slots``."""
    return sum(tensors[s.tensor].numel() // tensors[s.tensor].shape[s.dim] * s.positions.shape[1] for s in slots)
