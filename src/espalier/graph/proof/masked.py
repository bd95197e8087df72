"""The independent witness: the dense record, with everything that the plan removes set to zero.

Every value carries a mask (one where something is kept). Masks start at the sliced tensors and travel by running the
same structural operators on them, so the unit algebra has no say in where they go:

    structure (view, cat, slice, pool, index)   mask = op(mask) > 0
    pointwise                                   mask = product of the operands' masks
    contraction                                 mask = op(masks) > 0
    norm, softmax, mean, variance, extremum     the statistic is taken over kept positions only

After each operator what is masked is set to zero again. A pruned network that pairs a kept channel with another one's
weights cannot agree with this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...core import Plan
from ..axes.linear_paths import MULS
from ..axes.rules import contraction, factories, has_rule, indexing, pieces, reductions, spatial, structure
from ..graph import Graph
from ..recording.execute import execute
from ..recording.record import Op, Ref, bind, rebuild, tensor_refs, walk
from ..recording.sizes import Real, Size, anonymous, evaluate
from .masked_moves import MOVES
from .masked_statistics import STATISTICS, reduced
from .replay import Replay

_SPECIAL = {**STATISTICS, **MOVES}
_MOVES = {*structure.RULES, *pieces.RULES, *spatial.RULES, *indexing.RULES} - {"embedding"}
_SUMS = {*contraction.RULES, "lstm", "gru", "rnn_tanh", "rnn_relu"}
_REDUCES = set(reductions.RULES)
_NUMBERS = ("index", "indices", "lengths", "batch_sizes", "offsets", "offs")  # arguments that number positions


class MaskedReplay(Replay):
    """Replays the dense record with masks beside the values (None: everything is kept)."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        tensors: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        *,
        training: bool = False,
    ) -> None:
        record = graph.records[int(training)]
        super().__init__(record, tensors, inputs)
        self.graph = graph
        self.attributes = graph.attribute_values(plan)
        self.alive = graph.alive(plan)
        self.masks: dict[int, Tensor | None] = dict.fromkeys(self.values)
        made_up = [graph.records[0].ops[one.step] for one in graph.rescaled if one.rows is not None]
        places = {_place(op) for op in made_up}
        self.steady = {i for i, op in enumerate(record.ops) if places and _place(op) in places}
        surgery = graph.surgery(plan)
        keep: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
        for (name, d), one in surgery.slices.items():
            keep.setdefault(name, []).append((d, one.keep))
        for value, name in record.names.items():
            if name in keep and value in self.values:
                mask = _leaf_mask(self.values[value], keep[name])
                self.masks[value] = mask
                self.values[value] = self.values[value].masked_fill(mask == 0, 0)

    def forget(self, value: int) -> None:
        super().forget(value)
        self.masks.pop(value, None)

    def step(self, index: int, op: Op) -> None:
        recorded = (op.args, op.kwargs) if index in self.steady else self._recomputed(op)
        args, kwargs = rebuild(recorded, self.operand)
        masks = [self.masks.get(v) for v in op.refs()]
        if not has_rule(op):  # its operands are frozen
            masks = []
        if op.name.removeprefix("aten.") in factories.RULES:  # a write into it must find a mask
            self.store(op, execute(op, args, kwargs))
            self._keep(op, _whole(self.record.shapes[op.outs[0]], self.device))  # type: ignore[index]
            return
        if all(m is None for m in masks):
            self.store(op, execute(op, args, kwargs))
            self._keep(op, None)
            return
        name = op.name.removeprefix("aten.").removesuffix("_") if not isinstance(op.func, str) else op.func
        with_masks = self._mask_operands(op)
        special = _SPECIAL.get(name)
        if special is not None:
            result, mask = special(self, op, args, kwargs)
        elif name in _MOVES:
            result, mask = execute(op, args, kwargs), self._moved(op, *with_masks)
        elif name in _SUMS:
            result, mask = execute(op, args, kwargs), self._summed(op, *with_masks)
        elif name in _REDUCES:
            result, mask = execute(op, args, kwargs), self._reduced(op)
        else:
            result = execute(op, args, kwargs)
            first = next((r for r in walk(result) if isinstance(r, Tensor)), None)  # Python may ask for a number
            mask = None if first is None else self._in_place(op, _product(first, masks))
        self.store(op, _blank(op, result, mask))
        self._keep(op, mask)

    def _recomputed(self, op: Op) -> Any:
        """Factors that Python computes from sizes, and that nothing compensates, have their new values."""
        kinds = (Real, Size) if op.name.removeprefix("aten.") in MULS else Real

        def new(item: Any) -> Any:
            if not isinstance(item, kinds):
                return item
            value = evaluate(item.expr, self._leaf)
            return float(value) if isinstance(item, Real) else value

        return rebuild((op.args, op.kwargs), new)

    def _leaf(self, expr: tuple) -> int:
        if expr[0] == "attr":
            return self.attributes[expr[1], expr[2]]
        return int(self.graph.kept(self.graph.axes.values[self.record.training][expr[1]][expr[2]], self.alive).sum())

    def _keep(self, op: Op, mask: Any) -> None:
        masks = mask if isinstance(mask, list | tuple) else [mask] * len(op.outs)
        for value, one in zip(op.outs, masks, strict=False):
            if value is not None:
                own = self.values[value]
                self.masks[value] = one if one is not None and one.shape == own.shape else None

    def _mask_operands(self, op: Op) -> Any:
        """Return an operator's arguments with masks for its tensors, except for what numbers positions."""
        bound = bind(op)
        numbers = {r.value for name in _NUMBERS for r in tensor_refs(bound.get(name)) if self._is_whole(r.value)}

        def operand(item: Any) -> Any:
            if isinstance(item, Ref):
                return self.values[item.value] if item.value in numbers else self.mask_operand(item)
            return self.operand(item)

        return rebuild((op.args, op.kwargs), operand)

    def _is_whole(self, value: int) -> bool:
        return not (self.values[value].is_floating_point() or self.values[value].is_complex())

    def mask_operand(self, item: Ref) -> Tensor:
        """Return a tensor's mask, ones where everything is kept."""
        mask = self.masks.get(item.value)
        return _whole(self.values[item.value].shape, self.device) if mask is None else mask

    def _in_place(self, op: Op, mask: Tensor) -> Tensor:
        """A write into a view must reach its base's mask too."""
        if isinstance(op.func, str) or not op.func._schema.is_mutable or not isinstance(op.args[0], Ref):
            return mask
        source = (
            self.masks.get(op.args[1].value)
            if op.name.startswith("aten.copy") and isinstance(op.args[1], Ref)
            else None
        )
        return self.write_mask(op, mask if source is None else source)

    def write_mask(self, op: Op, mask: Tensor) -> Tensor:
        """Return an operator's mask; where it works in place, write it into its operand's."""
        own = self.masks.get(op.args[0].value) if isinstance(op.args[0], Ref) else None
        if own is None or not op.func._schema.is_mutable or own.shape != mask.shape or _overlaps(own):
            return mask
        return own.copy_(mask)

    def _moved(self, op: Op, args: tuple, kwargs: dict) -> Any:
        if op.name == "aten.constant_pad_nd":
            return execute(op, (args[0], args[1], 1.0), {})
        result = execute(op, args, {k: v for k, v in kwargs.items() if k != "dtype"})
        if _is_view(op):
            return result
        if isinstance(result, Tensor):
            return _positive(result)
        masks = [_positive(r) for r in result]
        # what is not a mask any more is where the first output was found
        return [m if m.is_floating_point() or m.shape != masks[0].shape else masks[0] for m in masks]

    def _summed(self, op: Op, args: tuple, kwargs: dict) -> Any:
        bound = bind(op)
        if op.name == "aten.convolution":
            return self._convolved(op, bound)
        if op.func == "bilinear":
            return _positive(torch.bilinear(*args[:3]))
        if isinstance(op.func, str):
            return self._recurrent(op)
        bias = bound.get("self") if op.name in ("aten.addmm", "aten.baddbmm") else None
        if bias is not None:
            product = torch.matmul(args[1], args[2])
            return _positive(product) * (args[0] > 0)
        if op.name == "aten.linear":
            return _positive(torch.nn.functional.linear(args[0], args[1]))
        return _positive(execute(op, args, kwargs))

    def _convolved(self, op: Op, bound: dict) -> Tensor:
        """A channel is kept where its row of weights is."""
        weight, out = self.masks.get(bound["weight"].value), self.record.shapes[op.outs[0]]  # type: ignore[index]
        if weight is None:
            weight = torch.ones_like(self.values[bound["weight"].value], dtype=torch.float32)
        if bound["transposed"]:
            groups = int(bound["groups"])
            rows = weight.flatten(2).amax(2).reshape(groups, -1, weight.shape[1]).amax(1).flatten()
        else:
            rows = weight.flatten(1).amax(1)
        return rows.reshape(1, -1, *[1] * (len(out) - 2)).expand(out).clone()

    def _recurrent(self, op: Op) -> list[Tensor]:
        """By the inferred units: the proof of recurrent layers rests on the values alone."""
        masks = []
        for value in op.outs:
            shape = self.record.shapes[value]  # type: ignore[index]
            kept = self.graph.kept(self.graph.axes.values[self.record.training][value][-1], self.alive)  # type: ignore[index]
            masks.append(torch.as_tensor(kept, dtype=torch.float32, device=self.device).expand(shape).clone())
        return masks

    def _reduced(self, op: Op) -> Any:
        x = self.masks[op.refs()[0]]
        return reduced(x, bind(op), torch.amax)  # type: ignore[arg-type]

    def mask_of(self, op: Op, name: str) -> Tensor:
        """Return an argument's mask, ones where everything is kept."""
        ref = bind(op)[name]
        return self.mask_operand(ref)


def _place(op: Op) -> tuple:
    """Return what tells an operator from others, in the eval and in the train record: its line and its factors."""
    factors = (item.expr for item in walk((op.args, op.kwargs)) if isinstance(item, Real | Size))
    return op.scope, op.source, op.name, *map(anonymous, factors)


def _whole(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return the mask of a tensor that is kept whole; masks are float32 whatever the default dtype is."""
    return torch.ones(shape, dtype=torch.float32, device=device)


def _leaf_mask(tensor: Tensor, keep: list[tuple[int, tuple[int, ...]]]) -> Tensor:
    mask = _whole(tensor.shape, tensor.device)
    for d, kept in keep:
        gone = torch.ones(tensor.shape[d], dtype=torch.bool, device=tensor.device)
        gone[list(kept)] = False
        mask.index_fill_(d, gone.nonzero().flatten(), 0)
    return mask


def _positive(mask: Tensor) -> Tensor:
    return (mask > 1e-6).float() if mask.is_floating_point() else mask


def _overlaps(mask: Tensor) -> bool:
    """Whether a mask repeats one element (it was expanded): nothing can be written into it."""
    return any(stride == 0 and n > 1 for stride, n in zip(mask.stride(), mask.shape, strict=True))


def _is_view(op: Op) -> bool:
    if isinstance(op.func, str):
        return False
    returns = op.func._schema.returns
    return bool(returns) and returns[0].alias_info is not None


def _product(result: Tensor, masks: Sequence[Tensor | None]) -> Tensor:
    mask = _whole((), result.device)
    for one in masks:
        if one is not None:
            mask = mask * one
    return mask.expand(result.shape) if mask.shape == result.shape else mask.expand(result.shape).clone()


def _blank(op: Op, result: Any, mask: Any) -> Any:
    """Set what is masked to zero, in place where the operator worked in place."""
    if isinstance(result, list | tuple):
        masks = mask if isinstance(mask, list | tuple) else [mask] * len(result)
        return [_blank(op, r, m) for r, m in zip(result, masks, strict=False)]
    if mask is None or not isinstance(result, Tensor) or mask.shape != result.shape:
        return result
    if not isinstance(op.func, str) and op.func._schema.is_mutable:
        return result.masked_fill_(mask == 0, 0)
    return result if _is_view(op) else result.masked_fill(mask == 0, 0)
