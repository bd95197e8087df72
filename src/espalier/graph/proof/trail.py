"""The trail: what every operator computed on the way, in a few numbers each.

An example may hide what differs: with one token, equal tokens or a closed gate, attention scaled wrongly gives the
right answer. The values on the way still differ, so a cut module must leave the trail that the replayed record leaves.

    fingerprint = sum over i of x_i * cos(i)        held against        magnitude = sum over i of |x_i|
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core import ProofError
from ..recording.record import Record, tensors_in
from ..recording.recorder import Recorder
from .agreement import TOLERANCE

_CHOOSES = {"einsum", "tensordot", "multi_dot"}  # calls that order their operators by size; what follows is compared
_SAYS_NOTHING = {  # no values yet, or none of its own
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_",
    "detach", "alias", "lift_fresh", "_local_scalar_dense",
}  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """What one operator left: its name, and for each output its shape, fingerprint and magnitude."""

    name: str
    outputs: tuple[tuple[tuple[int, ...], float, float], ...]


class Trail(list[Footprint]):
    """Footprints in order."""

    def note(self, name: str, call: str, result: Any) -> None:
        """Add what an operator gave, in a Python call of that name."""
        if is_compared(name, call):
            outputs = tuple((tuple(t.shape), *_numbers(t)) for t in tensors_in(result))
            self.append(Footprint(name, outputs))


def is_compared(name: str, call: str) -> bool:
    """Whether an operator gives values that follow from its operands alone, in an order of its own."""
    return name.removeprefix("aten.") not in _SAYS_NOTHING and call not in _CHOOSES


def _numbers(tensor: Tensor) -> tuple[float, float]:
    if tensor.layout != torch.strided or not tensor.numel():
        return 0.0, 0.0
    flat = tensor.detach().reshape(-1)
    flat = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
    flat = flat.to(torch.float64).nan_to_num(0, 0, 0)
    weights = torch.arange(flat.numel(), dtype=torch.float64, device=flat.device).cos_()
    return float(flat @ weights), float(flat.abs().sum())


class Watch(Recorder):
    """Sees the operators that a model runs, as a capture does, and keeps their footprints alone."""

    def __init__(self, trail: Trail) -> None:
        super().__init__(Record(False), None)
        self.trail = trail

    def see(self, tensor: Tensor) -> int:
        return 0

    def alias(self, tensor: Tensor, value: int) -> None:
        return None

    def leaf(self, item: Any) -> Any:
        return item

    def write(self, func: Any, args: tuple, kwargs: dict, result: Any) -> None:
        muted, self.muted = self.muted, True  # a footprint is made of operators too
        name = func if isinstance(func, str) else f"{func.namespace}.{func._opname}"
        self.trail.note(name, self.calls[-1][0], result)
        self.muted = muted

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.muted:
            self.write(func, args, kwargs or {}, result)
        return result


def agree_on_the_way(found: Trail, expected: Trail, record: Record, dtype: torch.dtype) -> None:
    """Compare the trails of a cut module and of its replayed record, as far as both ran the same operators.

    Raises:
        ProofError: an operator gave other values.
    """
    ops = [op for op in record.ops if is_compared(op.name, op.call)]
    for ours, theirs, op in zip(found, expected, ops, strict=False):
        if ours.name != theirs.name:
            return  # PyTorch chose other operators at these sizes; the outputs are compared all the same
        for (shape, value, size), (other_shape, other, other_size) in zip(ours.outputs, theirs.outputs, strict=False):
            near = TOLERANCE[dtype]
            same = math.isclose(value, other, abs_tol=near * max(size, other_size)) and math.isclose(
                size, other_size, rel_tol=near, abs_tol=1e-300
            )
            if shape != other_shape or not same:
                raise ProofError(
                    f"{op.name.removeprefix('aten.')} at {op.source or op.scope or 'the model'} computes other values "
                    "than the replayed record, though the example may hide it"
                )
