"""Replay: run a record again, on other tensors.

dense     the tensors as they are: must equal the model
sliced    the tensors after a cut, sizes recomputed from the plan: the oracle that a patched module must equal
masked    the dense tensors with everything that the plan removes set to zero, statistics over what is kept
          (``masked.py``): an independent witness, for it knows nothing of how sizes and attributes follow
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core import Plan, ProofError
from ..graph import Graph
from ..recording.execute import execute
from ..recording.record import Op, Record, Ref, bind, rebuild, walk
from ..recording.sizes import Real, Size, evaluate

_SIZED = {
    "view": "size", "_unsafe_view": "size", "reshape": "size", "_reshape_alias": "size", "expand": "size",
    "zeros": "size", "ones": "size", "empty": "size", "full": "size", "rand": "size", "randn": "size",
    "new_zeros": "size", "new_ones": "size", "new_empty": "size", "new_full": "size", "empty_strided": "size",
    "native_layer_norm": "normalized_shape", "_fused_rms_norm": "normalized_shape",
}  # fmt: skip


class Replay:
    """Runs a record's operators one by one.

    Args:
        record: what to run.
        tensors: by name, for parameters, buffers and plain tensor attributes.
        inputs: the example's tensors, in flattening order.
    """

    def __init__(self, record: Record, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
        self.record = record
        self.device = inputs[0].device if inputs else next(iter(tensors.values())).device
        floating = [t.dtype for t in tensors.values() if t.is_floating_point()]
        self.double = bool(floating) and floating[0] == torch.float64
        self.values: dict[int, Any] = {v: tensors[n] for v, n in record.names.items() if n in tensors}
        self.values.update(zip(record.inputs, inputs, strict=True))
        for value, tensor in record.constants.items():
            constant = tensor.double() if self.double and tensor.is_floating_point() else tensor
            self.values[value] = constant if tensor.is_meta else constant.to(self.device)
        self._last = self._last_uses()
        self.note: Callable[[str, str, Any], None] = lambda name, call, result: None

    def _last_uses(self) -> dict[int, list[int]]:
        last: dict[int, int] = {}
        for index, op in enumerate(self.record.ops):
            for value in (*op.refs(), *(v for v in op.outs if v is not None)):
                last[value] = index
        gone: dict[int, list[int]] = {}
        keep = set(self.record.outputs)
        for value, index in last.items():
            if value not in keep:
                gone.setdefault(index, []).append(value)
        return gone

    def run(self) -> list[Tensor]:
        """Run everything; return the model's output tensors."""
        with torch.no_grad():
            for index, op in enumerate(self.record.ops):
                self.step(index, op)
                for value in self._last.get(index, ()):
                    self.forget(value)
        return [self.values[v] for v in self.record.outputs]

    def forget(self, value: int) -> None:
        """Let go of what no operator reads any more."""
        self.values.pop(value, None)

    def step(self, index: int, op: Op) -> None:
        """Run one operator."""
        args, kwargs = self.arguments(index, op)
        result = execute(op, *rebuild((args, kwargs), self.operand))
        self.note(op.name, op.call, result)
        self.store(op, result)

    def arguments(self, index: int, op: Op) -> tuple[tuple, dict]:
        """Return the recorded arguments; a subclass changes sizes here."""
        return op.args, op.kwargs

    def operand(self, item: Any) -> Any:
        """Turn a recorded argument into a real one."""
        if isinstance(item, Ref):
            return self.values[item.value]
        if isinstance(item, torch.device):
            return self.device
        if isinstance(item, torch.dtype) and self.double and item in (torch.float32, torch.bfloat16, torch.float16):
            return torch.float64
        if isinstance(item, Size):
            return int(item)
        return float(item) if isinstance(item, Real) else item

    def store(self, op: Op, result: Any) -> None:
        """Keep an operator's outputs."""
        items = list(walk(result)) if op.many else [result]
        for value, item in zip(op.outs, items, strict=True):
            if value is not None:
                self.values[value] = item


class SlicedReplay(Replay):
    """Replays a record on sliced tensors: every size is recomputed from the plan."""

    def __init__(self, graph: Graph, plan: Plan, record: Record, tensors: Mapping[str, Tensor], inputs: Any) -> None:
        super().__init__(record, tensors, inputs)
        self.graph, self.alive = graph, graph.alive(plan)
        self.attributes = graph.attribute_values(plan)
        self.dims = graph.axes.values[record.training]

    def kept(self, value: int, d: int) -> int:
        """Return how many positions a dimension keeps."""
        return int(self.graph.kept(self.dims[value][d], self.alive).sum())

    def leaf(self, expr: tuple) -> int:
        """Return the value of an expression's leaf after the cut."""
        if expr[0] == "attr":
            return self.attributes[expr[1], expr[2]]
        return self.kept(expr[1], expr[2])

    def arguments(self, index: int, op: Op) -> tuple[tuple, dict]:
        args, kwargs = rebuild((op.args, op.kwargs), self._number)
        name = op.name.removeprefix("aten.")
        if name in _SIZED and op.outs[0] is not None:
            bound = bind(op)
            count = len(bound[_SIZED[name]] or ())
            dims = range(len(self.record.shapes[op.outs[0]]))[-count:] if count else ()
            sizes = [self.kept(op.outs[0], d) for d in dims]
            return self._replace(op, args, kwargs, _SIZED[name], sizes)
        if name in _ADJUST:
            return _ADJUST[name](self, op, args, kwargs)
        return args, kwargs

    def _number(self, item: Any) -> Any:
        if isinstance(item, Size | Real):
            value = evaluate(item.expr, self.leaf)
            return int(value) if isinstance(item, Size) else float(value)
        return item

    @staticmethod
    def _replace(op: Op, args: tuple, kwargs: dict, name: str, new: Any) -> tuple[tuple, dict]:
        names = [a.name for a in op.func._schema.arguments]
        i = names.index(name)
        if i < len(args):
            return (*args[:i], new, *args[i + 1 :]), kwargs
        return args, {**kwargs, name: new}

    def slices(self, op: Op, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Bounds count the kept positions before them."""
        bound = bind(op)
        value = bound["self"].value
        d = int(bound["dim"]) % len(self.record.shapes[value])
        kept, n = self.graph.kept(self.dims[value][d], self.alive), self.record.shapes[value][d]
        if kept.all() or int(bound["step"] or 1) > 1:  # interleaved parts: the stride's remainder stays
            return args, kwargs
        start, stop = (
            n if b is None and i else 0 if b is None else min(max(int(b) + n if int(b) < 0 else int(b), 0), n)
            for i, b in enumerate((bound["start"], bound["end"]))
        )
        args, kwargs = self._replace(op, args, kwargs, "start", int(kept[:start].sum()))
        return self._replace(op, args, kwargs, "end", int(kept[:stop].sum()))

    def pieces(self, op: Op, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """A piece's size is what it keeps."""
        d = int(bind(op)["dim"] or 0)
        sizes = [self.kept(v, d % len(self.record.shapes[v])) for v in op.outs if v is not None]
        name = "split_size" if "sizes" not in op.name else "split_sizes"
        return self._replace(op, args, kwargs, name, sizes[0] if name == "split_size" else sizes)

    def groups(self, op: Op, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """A convolution's groups: channels over channels a group."""
        bound = bind(op)
        x, w = self.values[bound["input"].value], self.values[bound["weight"].value]
        if int(bound["groups"]) == 1:
            return args, kwargs
        if bound["transposed"]:
            whole, per_out = self.kept(op.outs[0], 1), w.shape[1]  # type: ignore[arg-type]
            return self._replace(op, args, kwargs, "groups", whole // per_out)
        return self._replace(op, args, kwargs, "groups", x.shape[1] // w.shape[1])

    def normed(self, op: Op, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Group norm is told its batch and channels."""
        x = self.values[bind(op)["input"].value]
        args, kwargs = self._replace(op, args, kwargs, "N", x.shape[0])
        return self._replace(op, args, kwargs, "C", x.shape[1])


_ADJUST: dict[str, Callable] = {
    "slice": SlicedReplay.slices,
    "split": SlicedReplay.pieces,
    "unsafe_split": SlicedReplay.pieces,
    "split_with_sizes": SlicedReplay.pieces,
    "unsafe_split_with_sizes": SlicedReplay.pieces,
    "convolution": SlicedReplay.groups,
    "native_group_norm": SlicedReplay.normed,
}


def oracle(
    graph: Graph,
    plan: Plan,
    tensors: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    note: Callable[[str, str, Any], None] = lambda name, call, result: None,
) -> list[Tensor]:
    """Return what the pruned network must compute in eval mode; ``note`` hears what every operator gives.

    Raises:
        ProofError: the record cannot be replayed with the sliced tensors.
    """
    try:
        replay = SlicedReplay(graph, plan, graph.records[0], tensors, inputs)
        replay.note = note
        return replay.run()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ProofError(f"the sliced record does not run: {error}") from error
