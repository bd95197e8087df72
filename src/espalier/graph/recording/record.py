"""The record: which operators ran, on which tensors, from which line of which module."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from .sizes import Heard


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor in an operator's arguments: the number of a value."""

    value: int


@dataclass(slots=True)
class Op:
    """One operator call.

    Attributes:
        func: the ATen overload, or the name of a composite (``lstm``, ``gru``, ``rnn_tanh``, ``rnn_relu``).
        args, kwargs: tensors as ``Ref``; sizes that the model's Python passed as ``Size``, literals included;
            plain ints are sizes that PyTorch itself derived.
        outs: the values of the tensors it returned, None for anything else.
        scope: dotted name of the module that was running.
        source: ``file:line`` in the model's code.
        call: name of the Python-level function that led here.
        many: it returned a list or tuple.
        passed: the numbers that this Python-level function was given.
    """

    func: Any
    args: tuple
    kwargs: dict
    outs: tuple[int | None, ...]
    scope: str
    source: str
    call: str
    many: bool = False
    passed: tuple = ()
    _refs: list[int] | None = None

    @property
    def name(self) -> str:
        """``aten.view`` and the like, without the overload."""
        return self.func if isinstance(self.func, str) else f"{self.func.namespace}.{self.func._opname}"

    def refs(self) -> list[int]:
        """Return the values it reads, in order."""
        if self._refs is None:
            self._refs = [r.value for r in walk((self.args, self.kwargs)) if isinstance(r, Ref)]
        return self._refs


@dataclass
class Record:
    """One forward pass.

    Attributes:
        ops: in order.
        shapes, dtypes: of every value.
        names: ``{value: dotted tensor name}`` of parameters, buffers and plain tensor attributes.
        inputs: values of the example's tensors, in flattening order.
        constants: ``{value: tensor}`` created outside the trace.
        outputs: values that the model returned.
        heard: what the model's Python did with sizes.
        autocast: where ``torch.autocast`` was entered, which the record leaves out.
        returned: ``{module: the first tensor that each of its calls returned}``, in the order of the first returns;
            None for a call that returned no tensor.
    """

    training: bool
    ops: list[Op] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    constants: dict[int, torch.Tensor] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)
    returned: dict[str, list[int | None]] = field(default_factory=dict)
    autocast: list[str] = field(default_factory=list)
    on_meta: bool = False

    @cached_property
    def read(self) -> frozenset[int]:
        """The values that some operator reads, or that the model returned; of a finished record."""
        return frozenset(self.outputs).union(*(op.refs() for op in self.ops))

    def touched(self) -> set[str]:
        """Return the names of the model's tensors that some operator reads."""
        return {self.names[value] for op in self.ops for value in op.refs() if value in self.names}

    def same_operators(self, other: Record) -> bool:
        """Whether both records ran the same operators on the same values."""
        return (
            len(self.ops) == len(other.ops)
            and self.shapes == other.shapes
            and self.names == other.names
            and self.outputs == other.outputs
            and all(
                a.func == b.func and a.outs == b.outs and a.call == b.call and _spelled(a) == _spelled(b)
                for a, b in zip(self.ops, other.ops, strict=True)
            )
        )

    def value(self, shape: tuple[int, ...], dtype: torch.dtype) -> int:
        """Add a value."""
        self.shapes.append(shape)
        self.dtypes.append(dtype)
        return len(self.shapes) - 1


def _spelled(op: Op) -> Any:
    """Return an operator's arguments with their numbers' provenance, which plain equality does not see."""
    return rebuild((op.args, op.kwargs, op.passed), lambda item: (item, getattr(item, "expr", None)))


def walk(tree: Any) -> Iterator[Any]:
    """Yield the leaves of nested lists, tuples and dicts."""
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from walk(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from walk(item)
    elif isinstance(tree, slice):
        yield from (tree.start, tree.stop, tree.step)
    else:
        yield tree


def rebuild(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return nested lists, tuples and dicts with every leaf replaced."""
    if isinstance(tree, list):
        return [rebuild(item, leaf) for item in tree]
    if isinstance(tree, tuple):
        return tuple(rebuild(item, leaf) for item in tree)
    if isinstance(tree, dict):
        return {key: rebuild(item, leaf) for key, item in tree.items()}
    return leaf(tree)


def tensors_in(tree: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Yield the tensors in a model's outputs: containers, dicts and plain objects with tensor attributes."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors_in(item, depth + 1)
    elif isinstance(tree, list | tuple | set | frozenset | deque):
        for item in tree:
            yield from tensors_in(item, depth + 1)
    elif not isinstance(tree, torch.nn.Module | type) and depth < 8:
        slots = [name for kind in type(tree).__mro__ for name in np.atleast_1d(getattr(kind, "__slots__", ()))]
        yield from tensors_in([getattr(tree, str(name), None) for name in slots], depth + 1)
        yield from tensors_in(getattr(tree, "__dict__", {}), depth + 1)


COMPOSITE_ARGUMENTS = {
    "scaled_dot_product_attention": (
        "query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa",
    ),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "batch_norm": (
        "input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled",
    ),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable"),
    "bilinear": ("input1", "input2", "weight", "bias"),
    "_pad_packed_sequence": ("data", "batch_sizes", "batch_first", "padding_value", "total_length"),
    "pad_sequence": ("sequences", "batch_first", "padding_value", "padding_side"),
    "_sparse_mm": ("mat1", "mat2"),
}  # fmt: skip
_signatures: dict[Any, list[tuple[str, Any]]] = {}


def bind(op: Op) -> dict[str, Any]:
    """Return an operator's arguments by name, defaults included."""
    if isinstance(op.func, str):
        return {**dict(zip(COMPOSITE_ARGUMENTS.get(op.func, ()), op.args, strict=False)), **op.kwargs}
    if op.func not in _signatures:
        _signatures[op.func] = [
            (a.name, a.default_value if a.has_default_value() else None) for a in op.func._schema.arguments
        ]
    names = _signatures[op.func]
    bound = dict(names)
    bound.update(zip((n for n, _ in names), op.args, strict=False))
    bound.update(op.kwargs)
    return bound


def tensor_refs(tree: Any) -> list[Ref]:
    """Return the tensors in an argument."""
    return [item for item in walk(tree) if isinstance(item, Ref)]
