"""Looks: where the model's Python looks at values, so that what was recorded is one path of several.

An operator looks when PyTorch says that what it gives depends on values (``item``, ``bool``, ``nonzero``), or when it
hands values to Python or numpy. Only values that follow from the inputs or from the model's tensors count: those of
``torch.linspace(0, 0.1, depth)`` are the same for every input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from .record import Op, Record

LEAVES_TORCH = "numpy"  # the name of the operator that stands for a tensor handed to numpy, or to Python as a list
_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_BY_LENGTHS = {LEAVES_TORCH, "_pack_padded_sequence", "_pad_packed_sequence"}
_WORDS = {"_local_scalar_dense": "item, int or bool", LEAVES_TORCH: "numpy or tolist"}


def looks(records: Iterable[Record]) -> dict[str, tuple[str, str]]:
    """Return ``{file:line: (the module that looks there, with what)}``, in order."""
    return {
        op.source or f"module {op.scope!r}": (op.scope, _word(op))
        for record in records
        if not record.on_meta  # there are no values on meta
        for op in _looking(record)
    }


def decides(record: Record) -> bool:
    """Whether Python looked at any values, random numbers included."""
    return any(_looks(op, record) for op in record.ops)


def looks_note(records: Iterable[Record]) -> Iterator[str]:
    """Yield what the user should know where Python looked at values."""
    found = looks(records)
    if found:
        some = ", ".join(f"{place} ({word})" for place, (_, word) in list(found.items())[:5])
        more = f" and {len(found) - 5} more places" if len(found) > 5 else ""
        yield (
            f"the model's Python looks at values at {some}{more}: the groups and the proof hold for the path that the "
            "example takes, and say nothing of another"
        )


def _looking(record: Record) -> Iterator[Op]:
    """Yield the operators that look at values which follow from inputs or the model's tensors."""
    root: dict[int, int] = {}  # of a view: what it is a view of
    live = {*record.inputs, *record.names}
    for op in record.ops:
        refs = [root.get(value, value) for value in op.refs()]
        depends = any(value in live for value in refs)
        if depends and _looks(op, record):
            yield op
        if refs and _aliases(op):
            root.update((value, refs[0]) for value in op.outs if value is not None)
        if depends:
            live.update(value for value in op.outs if value is not None)
            live.update(refs[:1] if _aliases(op) and op.func._schema.is_mutable else ())


def _looks(op: Op, record: Record) -> bool:
    name = op.name.removeprefix("aten.")
    if isinstance(op.func, str) or name in _BY_LENGTHS:
        return name in _BY_LENGTHS
    if name in ("index", "_unsafe_index"):  # numbers pick as many as they are, truth values as many as are true
        return any(record.dtypes[value] in (torch.bool, torch.uint8) for value in op.refs()[1:])
    return not _TAGS.isdisjoint(op.func.tags)


def _aliases(op: Op) -> bool:
    """Whether the first output is the first operand, written to or seen otherwise."""
    if isinstance(op.func, str):
        return False
    returns = op.func._schema.returns
    return bool(returns) and returns[0].alias_info is not None


def _word(op: Op) -> str:
    name = op.name.removeprefix("aten.")
    return _WORDS.get(name, name)
