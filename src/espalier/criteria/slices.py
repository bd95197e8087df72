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

from ..core import Group, ModelError, Slot

if TYPE_CHECKING:
    from ..graph import Graph

Scores = dict[str, Tensor]
Criterion = Callable[..., Scores]


def slot_parameters(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Return ``{tensor name: parameter}`` for every slot of every group that is a parameter of ``model``.

    Raises:
        ModelError: none is there or one is shaped otherwise (the model is not the one that was traced), or the
            weights are on the meta device and have no values.
    """
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
    measure: Callable[[Tensor, tuple[int, ...]], Tensor],
    gather: Callable[[Tensor], Tensor],
) -> dict[str, list[tuple[Slot, Tensor]]]:
    """Measure every unit in every slot without copying the weights.

    ``measure(tensor, other dims)`` folds a tensor to one number a position (once a tensor dimension, however
    many groups share it: concatenations would be quadratic otherwise); ``gather`` folds (units, k) to (units,).

    Returns:
        ``{group: [(slot, numbers of shape (units,)), ...]}`` in slot order.
    """
    known: dict[tuple[str, int], Tensor] = {}

    def numbers(slot: Slot) -> Tensor:
        key = slot.tensor, slot.dim
        if key not in known:
            tensor = widened(tensors[slot.tensor])
            others = tuple(d for d in range(tensor.ndim) if d != slot.dim % tensor.ndim)
            known[key] = measure(tensor, others) if others else measure(tensor.unsqueeze(1), (1,))
        return gather(known[key][positions(slot, known[key].device)])

    return {
        name: [(slot, numbers(slot)) for slot in group.slots if slot.tensor in tensors]
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
