"""The two modes that record: operators with their operands, and Python calls with the sizes that they pass.

Calls     (TorchFunctionMode)  gives shapes their provenance, notes the numbers of each Python call, and records a
          few calls whole (attention, recurrent layers, norms) that would come apart into many operators
Recorder  (TorchDispatchMode)  writes every ATen operator down
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .chance import filled
from .meta_layouts import MetaLayouts
from .record import Op, Record, Ref, rebuild, walk
from .sizes import Real, Size, plain
from .slicing import bounded, hear_whole_slices
from .source_lines import source_line

_COMPOSITE = {
    "lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention", "rms_norm", "bilinear", "batch_norm",
    "layer_norm", "_pad_packed_sequence", "pad_sequence", "_sparse_mm",
}  # fmt: skip


_DERIVES_SIZES = {"chunk", "tensor_split", "linear", "flatten", "softmax", "repeat_interleave"}


_INFERS = {"view", "reshape", "expand", "unflatten", "broadcast_to", "as_strided"}  # -1 stands for any size


_KEEPS_SHAPE = {"batch_norm", "layer_norm", "rms_norm"}


_INDEXES = {"__getitem__", "__setitem__"}


_LEAVE_TORCH = {"numpy", "__array__", "tolist", "__dlpack__"}


_DIMENSIONS = {"dim", "dims", "dim0", "dim1", "dim2", "dimension", "axis"}  # numbers that are never sizes


_OPENED = {"multi_head_attention_forward", *_COMPOSITE}  # written in Python, with sizes or a composite inside


class Recorder(TorchDispatchMode):
    """Records every ATen operator."""

    def __init__(self, record: Record, layouts: MetaLayouts | None) -> None:
        super().__init__()
        self.record = record
        self.scopes: list[str] = [""]
        self.calls: list[tuple[str, list]] = [("", [])]
        self.index: list[Any] = []  # what is left of the index that Python gave
        self.muted = False
        self._values: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []  # ids stay unique while the tensors live
        self.layouts = layouts

    def see(self, tensor: torch.Tensor) -> int:
        """Return the value of a tensor; one never seen before was created outside: a constant."""
        value = self._values.get(id(tensor))
        if value is None:
            value = self._new(tensor)
            if self.record.ops and value not in self.record.names:
                self.record.constants[value] = tensor
        return value

    def _new(self, tensor: torch.Tensor) -> int:
        value = self.record.value(tuple(tensor.shape), tensor.dtype)
        self._values[id(tensor)] = value
        self._alive.append(tensor)
        return value

    def returned(self, module: str, tensor: torch.Tensor | None) -> None:
        """Note what a module returned."""
        value = None if tensor is None else self._values.get(id(tensor))
        self.record.returned.setdefault(module, []).append(value)

    def alias(self, tensor: torch.Tensor, value: int) -> None:
        """Let ``tensor`` be another Python object for the same value."""
        self._values[id(tensor)] = value
        self._alive.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self.muted:
            return filled(func, args, kwargs, func(*args, **kwargs))
        name, numbers = self.calls[-1]
        refs = rebuild((args, kwargs), self.leaf)
        result = self.layouts.run(func, args, kwargs) if self.layouts else func(*args, **kwargs)
        result = filled(func, args, kwargs, result)
        if name in _INDEXES and func._opname in ("slice", "select"):
            refs = (bounded(func._opname, refs[0], self.index), refs[1])
        else:
            refs = _with_provenance(refs, name, numbers, func)
        self.write(func, *refs, result)
        return result

    def leaf(self, item: Any) -> Any:
        """Return a tensor as a reference, anything else as it is."""
        if not isinstance(item, torch.Tensor):
            return item
        value = self._values.get(id(item))
        if value is None:
            value = self._new(item)
            self.record.constants[value] = item
        return Ref(value)

    def _call(self, many: bool) -> tuple[str, bool, tuple]:
        name, numbers = self.calls[-1]
        return name, many, tuple(numbers)

    def write(self, func: Any, args: tuple, kwargs: dict, result: Any) -> None:
        """Add an operator to the record."""
        many = isinstance(result, list | tuple)
        outs = tuple(
            self._new(item) if isinstance(item, torch.Tensor) else None
            for item in (walk(result) if many else (result,))
        )
        self.record.ops.append(Op(func, args, kwargs, outs, self.scopes[-1], source_line(), *self._call(many)))


class Calls(TorchFunctionMode):
    """Sees Python-level calls: gives shapes their provenance and notes which sizes each call passes."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._get(func, args)
        if name == "__set__" and func.__self__ is torch.Tensor.data:  # from here on the tensor is another value
            self.recorder.alias(args[0], self.recorder.see(args[1]))
        if name in ("size", "numel", "__len__") and isinstance(args[0], torch.Tensor):
            return self._size(name, *args, **kwargs)
        python = isinstance(func, FunctionType)
        if name in _COMPOSITE and not python:
            return self._composite(func, name, args, kwargs)
        if python and name in _OPENED:
            with self:
                return _opened(func)(*args, **kwargs)
        self._note(name, args)
        self.recorder.calls.append((name, list(_numbers(name, args, kwargs))))
        try:
            return func(*args, **kwargs)
        finally:
            self.recorder.calls.pop()

    def _note(self, name: str, args: tuple) -> None:
        """Note what no operator tells: an index as Python wrote it, and values that Python takes out of PyTorch."""
        if name in _INDEXES:
            hear_whole_slices(self._shape(args[0]), args[1])
            self.recorder.index = list(args[1]) if isinstance(args[1], tuple) else [args[1]]
        elif name in _LEAVE_TORCH:
            self.recorder.write("numpy", (self.recorder.leaf(args[0]),), {}, None)

    def _shape(self, tensor: torch.Tensor) -> list[Size]:
        value = self.recorder.see(tensor)
        return [Size(n, ("dim", value, d)) for d, n in enumerate(tensor.shape)]

    def _get(self, func: Any, args: tuple) -> Any:
        owner = func.__self__
        if owner is torch.Tensor.shape:
            return torch.Size(self._shape(args[0]))
        result = func(*args)
        if owner is torch.Tensor.data:
            self.recorder.alias(result, self.recorder.see(args[0]))
        return result

    def _size(self, name: str, tensor: torch.Tensor, dim: int | None = None) -> Any:
        shape = self._shape(tensor)
        if name == "numel":
            result: Any = 1
            for n in shape:
                result = n * result
            return result
        if name == "__len__":
            return int(shape[0])  # no other int may leave ``len``: heard as a size that became a bare number
        return torch.Size(shape) if dim is None else shape[dim]

    def _composite(self, func: Any, name: str, args: tuple, kwargs: dict) -> Any:
        recorder = self.recorder
        refs = rebuild((args, kwargs), recorder.leaf)
        recorder.muted = True
        try:
            if name in _KEEPS_SHAPE and args[0].is_meta:  # a slow decomposition of a known shape
                result = torch.empty_like(args[0])
            else:
                result = recorder.layouts.remembered(func, args, kwargs) if recorder.layouts else func(*args, **kwargs)
        finally:
            recorder.muted = False
        recorder.write(name, refs[0], refs[1], result)
        return result


_MADE_BY_SIZES = {"zeros", "ones", "empty", "full", "rand", "randn"}


def _numbers(name: str, args: tuple, kwargs: dict) -> Iterator[int | float]:
    """Yield the numbers that a call passes; a size may be a tensor (how many sequences a packed batch holds)."""
    for item in walk((args, kwargs)):
        if name in _MADE_BY_SIZES and isinstance(item, torch.Tensor) and item.dim() == 0 and not item.is_meta:
            yield int(item.detach().numpy())
        elif isinstance(item, np.integer):
            yield int(item)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield item


_clones: dict[Any, Callable] = {}


def _opened(func: Any) -> Callable:
    """Return a PyTorch function written in Python so that the calls inside it are seen too.

    Such a function hands itself to the mode again and again; a clone whose globals say "no override here" does not.
    """
    if func not in _clones:
        scope = dict(func.__globals__)
        for name in ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"):
            scope[name] = lambda *_: False
        scope["float"] = lambda x: x * 1.0 if isinstance(x, Size | Real) else float(x)  # keeps provenance
        clone = FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
        clone.__kwdefaults__ = func.__kwdefaults__
        _clones[func] = clone
    return _clones[func]


def _with_provenance(refs: tuple[tuple, dict], name: str, numbers: list, func: Any) -> tuple[tuple, dict]:
    """Put the sizes that the Python call passed in place of the plain numbers that the operator received."""
    if not numbers:
        return refs
    args, kwargs = refs
    if name == "narrow" and len(args) > 3:  # slice(start, start + length)
        start, length = (_literal(n) for n in numbers[-2:])
        return (*args[:2], start, start + length, *args[4:]), kwargs
    names = [argument.name for argument in func._schema.arguments]
    placed = (a if n in _DIMENSIONS else _placed(a, name, numbers) for n, a in zip(names, args, strict=False))
    return tuple(placed), {k: v if k in _DIMENSIONS else _placed(v, name, numbers) for k, v in kwargs.items()}


def _placed(item: Any, name: str, numbers: list) -> Any:
    """Return an operator's argument with the numbers that Python passed in it."""
    if isinstance(item, list) and item and all(type(v) is int for v in item):
        return _align(item, name, numbers)
    if isinstance(item, list | tuple):
        return type(item)(_placed(v, name, numbers) for v in item)
    if type(item) not in (int, float) or name in _DERIVES_SIZES:
        return item
    kind = Real if isinstance(item, float) else Size
    same = (n for n in reversed(numbers) if isinstance(n, kind) and plain(n) == item)  # the last: conv's groups
    return next(same, item)


def _align(sizes: list[int], name: str, numbers: list) -> list[int]:
    """Find the operator's sizes among the numbers that Python passed."""
    if name == "unflatten":
        inner = numbers[1:]
        first = plain(numbers[0])
        start = first if first >= 0 else len(sizes) - len(inner) + 1 + first
        return [*sizes[:start], *map(_literal, inner), *sizes[start + len(inner) :]]
    free = (-1,) if name in _INFERS else ()
    for start in range(len(numbers) - len(sizes) + 1):
        window = numbers[start : start + len(sizes)]
        if all(not isinstance(n, float) and plain(n) in (s, *free) for n, s in zip(window, sizes, strict=True)):
            return [_literal(n) for n in window]
    return sizes


def _literal(number: int) -> Size:
    return number if isinstance(number, Size) else Size(number, ("const", number))
