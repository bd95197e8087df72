"""Linear paths: in which parameters, and in which of their rows, is a value linear?

sources(value)   walks back through moves, sums and products to the last affine operators' weights
reach(leaf)      sends their row numbers through the same operators, forwards: which rows arrive, and nowhere else
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from ..recording.execute import execute
from ..recording.record import Op, Record, Ref, bind, rebuild, tensor_refs
from ..recording.sizes import Size
from .rules import pieces, structure

_MOVES = {*structure.RULES, *pieces.RULES, "clone", "_to_copy", "detach", "alias", "contiguous", "neg"}


_WEIGHT_MOVES = {
    "t", "transpose", "detach", "alias", "clone", "view", "_unsafe_view", "split", "split_with_sizes", "slice",
}  # fmt: skip


_ADDS = {"add", "add_", "sub", "sub_", "cat", "stack"}


MULS = {"mul", "mul_", "div", "div_"}


_PRODUCTS = {"mm": "mat2", "addmm": "mat2", "linear": "weight", "convolution": "weight"}


_NORMS = {"layer_norm", "native_layer_norm", "_fused_rms_norm", "batch_norm", "rms_norm"}


def _mark(flags: Tensor, numbers: Tensor) -> None:
    """Set the flags of all row numbers; dimensions that repeat them are looked at once."""
    for d, stride in enumerate(numbers.stride()):
        if stride == 0:
            numbers = numbers.narrow(d, 0, 1)
    flags |= torch.bincount(numbers.flatten(), minlength=len(flags)) > 0


class LinearPaths:
    """Walks a record backwards to parameters and forwards to uses."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.maker: dict[int, int] = {}
        self.users: dict[int, list[int]] = defaultdict(list)
        for index, op in enumerate(record.ops):
            for value in set(op.refs()):
                self.users[value].append(index)
            for value in op.outs:
                if value is not None:
                    self.maker[value] = index

    def rows(self, value: int, target: int | None) -> dict[str, Tensor] | None:
        """Return the rows of the parameters in which ``value`` is linear, if they feed nothing else."""
        goal = (value, target)
        sources = self._sources(value, 0)
        if not sources:
            return None
        rows: dict[str, Tensor] = {}
        for leaf in sources:
            reached = self._reach(leaf, goal)
            if reached is None:
                return None
            rows[self.record.names[leaf]] = reached
        return rows

    def _sources(self, value: int, depth: int) -> set[int] | None:
        """Return the parameter values that ``value`` is linear in together, or None."""
        if value in self.record.names:
            return {value} if self.record.dtypes[value].is_floating_point else None
        if depth > 60 or value not in self.maker:
            return None
        op = self.record.ops[self.maker[value]]
        name = op.name.removeprefix("aten.")
        if name in _MOVES and name not in _ADDS:
            return self._sources(op.refs()[0], depth + 1)
        if name in _ADDS:
            return self._union(op, depth)
        if name in MULS:
            return self._factor(op, depth)
        if name in ("bmm", "baddbmm"):
            return self._sources(op.refs()[0], depth + 1) if name == "bmm" else None
        return self._affine(op, name)

    def _union(self, op: Op, depth: int) -> set[int] | None:
        found: set[int] = set()
        for ref in tensor_refs(op.args):
            own = self._sources(ref.value, depth + 1)
            if own is None:
                return None
            found |= own
        return found

    def _factor(self, op: Op, depth: int) -> set[int] | None:
        refs = op.refs()
        for value in (
            refs[:1] if op.name.startswith("aten.div") else sorted(refs, key=lambda v: v not in self.record.names)
        ):
            own = self._sources(value, depth + 1)
            if own:
                return own
        return None

    def _affine(self, op: Op, name: str) -> set[int] | None:
        bound = bind(op)
        if name in _PRODUCTS:
            leaf = self._leaf(bound[_PRODUCTS[name]].value)
            bias = bound.get("bias") or (bound.get("self") if name == "addmm" else None)
            parts = [leaf, *([self._leaf(bias.value)] if isinstance(bias, Ref) else [])]
        elif name in _NORMS:
            parts = [self._leaf(bound[n].value) for n in ("weight", "bias") if isinstance(bound.get(n), Ref)]
        else:
            return None
        return None if not parts or None in parts else set(parts)  # type: ignore[arg-type]

    def _leaf(self, value: int) -> int | None:
        """Return the parameter of which ``value`` is a piece, a transpose or a view."""
        while value not in self.record.names:
            if value not in self.maker:
                return None
            op = self.record.ops[self.maker[value]]
            if op.name.removeprefix("aten.") not in _WEIGHT_MOVES:
                return None
            value = op.refs()[0]
        return value

    # ---- forwards ---------------------------------------------------------------------------------------------------

    def _reach(self, leaf: int, goal: tuple[int, int | None]) -> Tensor | None:
        """Return which rows of ``leaf`` reach the goal, None if one of them goes anywhere else."""
        if self.record.names[leaf] not in self.record.names.values() or not self.record.shapes[leaf]:
            return None
        rows = self.record.shapes[leaf][0]
        good, bad = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)
        for value, numbers in self._entries(leaf):
            if numbers is not None:
                self._spread(value, numbers, goal, good, bad)
                continue
            arrives, leaves = torch.zeros(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
            self._spread(
                value, torch.zeros((), dtype=torch.int32).expand(self.record.shapes[value]), goal, arrives, leaves
            )
            good |= arrives
            bad |= leaves
        if not good.any() or (good & bad).any():
            return None
        return good.nonzero().flatten()

    def _entries(self, leaf: int) -> Iterator[tuple[int, Tensor | None]]:
        """Yield every value that an affine operator makes of the leaf, with the leaf's row number everywhere in it.

        None stands for all rows everywhere: the operator sums over them (``b @ a`` of two parameters).
        """
        shape = self.record.shapes[leaf]
        form = [shape[0], *[1] * (len(shape) - 1)]
        pending = [(leaf, torch.arange(shape[0], dtype=torch.int32).reshape(form).expand(shape))]
        while pending:
            value, numbers = pending.pop()
            for index in self.users[value]:
                op = self.record.ops[index]
                name = op.name.removeprefix("aten.")
                if name in _WEIGHT_MOVES:
                    pending.extend(self._moved(op, value, numbers))
                elif op.outs[0] is not None:
                    yield op.outs[0], self._channels(op, name, value, numbers)

    def _channels(self, op: Op, name: str, value: int, numbers: Tensor) -> Tensor | None:
        """Send a weight's row numbers to the channels of an affine operator's output, None where it sums over them."""
        shape = self.record.shapes[op.outs[0]]  # type: ignore[index]
        if numbers.dim() > 1:
            bound = bind(op)
            weight = bound.get(_PRODUCTS.get(name, ""))
            if not isinstance(weight, Ref) or weight.value != value:
                return numbers.flatten()  # an unknown use: what it reaches is bad
            rows = numbers.t() if name in ("mm", "addmm") else numbers.flatten(1)
            if not bool((rows == rows[:, :1]).all()):
                return None
            numbers = rows[:, 0]
        channel = 1 if name in ("convolution", "batch_norm") else -1
        if len(shape) < 2 or shape[channel] != len(numbers):
            return numbers
        form = [1] * len(shape)
        form[channel] = len(numbers)
        return numbers.reshape(form).expand(shape)

    def _spread(self, value: int, numbers: Tensor, goal: tuple[int, int | None], good: Tensor, bad: Tensor) -> None:
        """Send row numbers from ``value`` on; what arrives at the goal is good, what leaves the linear path is bad."""
        if tuple(numbers.shape) != self.record.shapes[value]:
            _mark(bad, numbers)
            return
        goal_value, goal_step = goal
        if value == goal_value and goal_step is None:
            _mark(good, numbers)
            return
        if value in self.record.outputs:
            _mark(bad, numbers)
        for index in self.users[value]:
            op = self.record.ops[index]
            if (
                value == goal_value
                and index == goal_step
                and op.refs().index(value) == 0
                and op.refs().count(value) == 1
            ):
                _mark(good, numbers)
            else:
                self._through(op, value, numbers, goal, good, bad)

    def _through(self, op: Op, value: int, numbers: Tensor, goal: tuple, good: Tensor, bad: Tensor) -> None:
        name = op.name.removeprefix("aten.")
        if name in MULS | (_ADDS - {"cat", "stack"}) or name in ("clone", "_to_copy", "detach", "alias", "neg"):
            out = op.outs[0]
            if out is not None and self.record.shapes[out] == tuple(numbers.shape):
                self._spread(out, numbers, goal, good, bad)
                return
        elif name in ("bmm",) and op.refs()[0] == value:
            if self._leads(op.outs[0], goal):  # type: ignore[arg-type]
                _mark(good, numbers)
                return
        elif name in _MOVES:
            self._move(op, value, numbers, goal, good, bad)
            return
        _mark(bad, numbers)

    def _leads(self, value: int, goal: tuple[int, int | None]) -> bool:
        """Whether ``value`` goes to the goal by moves and products alone, and nowhere else."""
        while (value, None) != goal:
            users = self.users[value]
            if len(users) != 1 or self.record.ops[users[0]].name.removeprefix("aten.") not in _MOVES | MULS:
                return False
            following = self.record.ops[users[0]].outs[0]
            if following is None:
                return False
            value = following
        return True

    def _move(self, op: Op, value: int, numbers: Tensor, goal: tuple, good: Tensor, bad: Tensor) -> None:
        moved = self._moved(op, value, numbers)
        if not moved:
            _mark(bad, numbers)
        for out, piece in moved:
            self._spread(out, piece, goal, good, bad)

    def _moved(self, op: Op, value: int, numbers: Tensor) -> list[tuple[int, Tensor]]:
        """Run a structural operator on row numbers; an empty list when it cannot."""

        def operand(item: object) -> object:
            if isinstance(item, Ref):
                if item.value == value:
                    return numbers
                return torch.full(self.record.shapes[item.value], -1, dtype=torch.int32)
            return int(item) if isinstance(item, Size) else item

        args, kwargs = rebuild((op.args, op.kwargs), operand)
        try:
            result = execute(op, args, {k: v for k, v in kwargs.items() if k not in ("dtype", "device")})
        except (RuntimeError, TypeError):
            return []
        moved = []
        for out, piece in zip(op.outs, result if op.many else [result], strict=True):
            if out is None or piece.numel() == 0 or int(piece.amax()) < 0:
                continue
            if len(op.refs()) > 1:  # rotary halves join again: what came from elsewhere counts as already seen
                piece = torch.where(piece < 0, piece.amax(), piece)
            moved.append((out, piece))
        return moved
