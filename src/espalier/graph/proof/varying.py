"""Varying: other whole numbers for an example, that its model can read: an example of zeros shows one row of a table.

token ids    anything that their table has a row for, where nothing but the table and comparisons reads them
the rest     what occurs in a row of the tensor, in another order; not what is sorted, which may be offsets
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..recording.record import Record, Ref, bind, tensors_in
from ..recording.skeleton import map_tensors

_MOVES = {
    "view", "_unsafe_view", "reshape", "_reshape_alias", "clone", "_to_copy", "unsqueeze", "squeeze", "expand", "slice",
    "select", "t", "transpose", "permute", "detach", "alias",
}  # fmt: skip
_COMPARES = {"eq", "ne", "lt", "le", "gt", "ge"}
_TABLES = {"embedding"}


def varied(record: Record, example: Any) -> Iterator[Any]:
    """Yield examples with other whole numbers, the most different first; none where it holds no whole numbers."""
    tensors = list(tensors_in(example))
    rows = {i: _rows(record, value) for i, value in enumerate(record.inputs)}
    ids = {id(t): n for t, n in zip(tensors, rows.values(), strict=True) if n and _numbers_rows(t, n)}
    mixed = {id(t) for t in tensors if id(t) not in ids and _may_be_mixed(t)}

    def change(tensor: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        if id(tensor) in ids:
            other = torch.randint(ids[id(tensor)], tensor.shape, generator=generator)
            return other.to(device=tensor.device, dtype=tensor.dtype)
        if id(tensor) in mixed:
            return tensor.gather(-1, torch.rand(tensor.shape, generator=generator).argsort(-1))
        return tensor

    if mixed:
        yield map_tensors(example, change)
        mixed.clear()
    if ids:
        yield map_tensors(example, change)


def _rows(record: Record, value: int) -> int | None:
    """Return how many rows the smallest table has that a value numbers; None where something else reads it too."""
    rows: list[int] = []
    pending = [value]
    while pending:
        one = pending.pop()
        for op in (op for op in record.ops if one in op.refs()):
            name = op.name.removeprefix("aten.")
            if name in _TABLES and bind(op)["indices"] == Ref(one):
                rows.append(record.shapes[bind(op)["weight"].value][0])
            elif name in _MOVES:
                pending.extend(v for v in op.outs if v is not None)
            elif name not in _COMPARES:
                return None
    return min(rows, default=None)


def _is_whole(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_floating_point() and not tensor.is_complex()


def _numbers_rows(tensor: Tensor, rows: int) -> bool:
    """Whether an example's own numbers are right: where they are not, the model must be seen not to run."""
    return _is_whole(tensor) and tensor.numel() > 0 and 0 <= int(tensor.min()) and int(tensor.max()) < rows


def _may_be_mixed(tensor: Tensor) -> bool:
    """Whether a tensor's rows can be mixed: on a GPU, a number out of place may be a fault that ends the process."""
    if not _is_whole(tensor) or not tensor.dim() or tensor.device.type != "cpu":
        return False
    flat = tensor.reshape(-1).to(torch.int64)
    steps = flat.diff()
    return bool((steps > 0).any()) and bool((steps < 0).any())
