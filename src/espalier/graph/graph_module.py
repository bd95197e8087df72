"""The record as a program: a cut network as an ``fx.GraphModule`` that needs none of the model's own Python.

    record ──arguments of the sliced replay──▶ one fx node an operator ──┐
    tensors ──slice, rescale──▶ parameters and buffers by name ──────────┴──▶ GraphModule

The replay runs while it is written down, for some arguments (the groups of a convolution) follow from real shapes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..core import CutError, Plan, Slice, Surgery
from . import grids, masks, sharing
from .graph import Graph
from .kinds import check_cut
from .proof.replay import SlicedReplay
from .recording.execute import COMPOSITES, execute
from .recording.looks import LEAVES_TORCH
from .recording.record import Op, Record, Ref, rebuild, tensors_in
from .recording.skeleton import map_tensors
from .recording.tensors import named_tensors
from .rescale import rescale
from .surgery.operate import slice_tensor


def to_graph_module(model: nn.Module, graph: Graph, plan: Plan | None = None) -> fx.GraphModule:
    """Return what the cut model computes, as a flat program of ATen operators; ``model`` is untouched.

    It computes what ``cut(model, graph, plan)`` computes, also where the model's Python cannot be patched. What the
    record holds is fixed in it: eval mode, the example's batch and input sizes, the branches that Python took, and the
    model's device. It takes the example's tensors in order (keywords of a dict under their own names) and returns the
    model's tensors in order: one, or a tuple. Parameters and buffers keep their names, under ``model.`` if one of them
    is a name that GraphModule needs itself; tied ones appear once, under the first; constants are ``constant_0``, ....
    Save it as ``.pt2``: ``torch.export.save(torch.export.export(result, (example,)), path)``.

    Args:
        model: the model that ``graph`` was traced from, or any copy of it.
        graph: from ``trace``.
        plan: which units each group keeps; all of them without one.

    Raises:
        PlanError: the plan does not fit the graph.
        CutError: the model is not the traced one, its inputs are quantized, the record cannot be run again, or a part
            of it ran in numpy.
    """
    plan = Plan({}) if plan is None else plan
    check_cut("to_graph_module", model, graph, plan)
    _check_whole(graph.records[0])
    if grids.grids_of(model).inputs:
        raise CutError("the record does not say how inputs are quantized: cut the model itself, or take its grids off")
    surgery = graph.surgery(plan)
    holder = _holder(model, graph, surgery)
    grids.carry(model, holder, surgery)
    rescale(holder, graph, plan)
    tensors = named_tensors(holder)
    writer = _Writer(graph, plan, tensors, _inputs(graph, tensors))
    writer.declare(_input_names(graph))
    try:
        writer.run()
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
        raise CutError(f"the record cannot be run again: {error}") from error
    result = writer.finish(type(model).__name__)
    previous = getattr(model, "espalier_surgery", None) or Surgery()
    result.espalier_surgery = previous.then(surgery)  # type: ignore[assignment] - so that an optimizer can be carried
    masks.carry(model, result, surgery)
    grids.carry(holder, result, Surgery())
    sharing.carry(model, result, surgery)
    return result


def _check_whole(record: Record) -> None:
    for op in record.ops:
        if op.func == LEAVES_TORCH and record.dtypes[op.refs()[0]].is_floating_point:
            raise CutError(f"values leave PyTorch at {op.source or op.scope}, and what comes back is no operator")


def _holder(model: nn.Module, graph: Graph, surgery: Surgery) -> nn.Module:
    """Return a tree of empty modules with the model's traced tensors, sliced, in their places."""
    slices: dict[str, dict[int, Slice]] = {}
    for one in surgery.slices.values():
        slices.setdefault(one.tensor, {})[one.dim] = one
    tensors = named_tensors(model)
    root = nn.Module()
    for name in graph.leaves:
        found = tensors.get(name)
        if found is None or tuple(found.shape) != graph.shapes[name]:
            shape = None if found is None else tuple(found.shape)
            raise CutError(f"this model is not the traced one: {name!r} has shape {shape}, not {graph.shapes[name]}")
        own = slice_tensor(found, slices.get(name, {}))
        own = own.clone() if name not in slices else own
        _register(root, name, nn.Parameter(own, found.requires_grad) if isinstance(found, nn.Parameter) else own)
    return root


def _register(root: nn.Module, name: str, tensor: Tensor) -> None:
    *path, last = name.split(".")
    for step in path:
        if step not in root._modules:
            root.add_module(step, nn.Module())
        root = root.get_submodule(step)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(last, tensor)
    else:
        root.register_buffer(last, tensor)


def _inputs(graph: Graph, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the example's tensors on the model's device, in its precision where that is double."""
    first = next((t for t in tensors.values() if t.is_floating_point()), None)
    if first is None:
        return list(tensors_in(graph.example))

    def fitting(tensor: Tensor) -> Tensor:
        double = first.dtype == torch.float64 and tensor.is_floating_point()
        return tensor.detach().to(first.device, torch.float64 if double else tensor.dtype, copy=True)

    return list(tensors_in(map_tensors(graph.example, fitting)))


def _input_names(graph: Graph) -> list[str]:
    if isinstance(graph.example, dict) and all(isinstance(value, Tensor) for value in graph.example.values()):
        return list(graph.example)
    return [f"input_{i}" for i in range(len(graph.records[0].inputs))]


class _Writer(SlicedReplay):
    """Runs the sliced record and writes every operator down."""

    def __init__(self, graph: Graph, plan: Plan, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> None:
        super().__init__(graph, plan, graph.records[0], tensors, inputs)
        self.program = fx.Graph()
        self.nodes: dict[int, Any] = {}
        self.root = nn.Module()
        self.used = {value for op in self.record.ops for value in op.refs()} | set(self.record.outputs)

    def declare(self, input_names: Sequence[str]) -> None:
        """Write the inputs, and the tensors that some operator reads or the model returns."""
        for value, name in zip(self.record.inputs, input_names, strict=True):
            self.nodes[value] = self.program.placeholder(name)
        named = {value: name for value, name in self.record.names.items() if value in self.used}
        constants = [value for value in self.record.constants if value in self.used]
        reserved = fx.GraphModule(nn.Module(), fx.Graph())
        firsts = {name.partition(".")[0] for name in named.values()}
        clash = any(hasattr(reserved, first) or first.startswith("constant_") for first in firsts)
        places = {value: f"model.{name}" if clash else name for value, name in named.items()}
        places.update({value: f"constant_{i}" for i, value in enumerate(constants)})
        for value, name in places.items():
            _register(self.root, name, self.values[value])
            if not isinstance(self.values[value], nn.Parameter):  # running the record may write into it
                self.values[value] = self.values[value].clone()
            self.nodes[value] = self.program.get_attr(name)

    def step(self, index: int, op: Op) -> None:
        """Run one operator and write it down."""
        recorded = self.arguments(index, op)
        args, kwargs = rebuild(recorded, self.operand)
        result = execute(op, args, kwargs)
        self.store(op, result)
        written, keywords = rebuild(recorded, self._operand_node)
        if op.name.startswith("aten.as_strided") and result is args[0]:
            node = written[0]  # a change of memory layout
        else:
            node = self.program.call_function(_target(op), written, keywords)
        for value, path in zip(op.outs, _paths(result) if op.many else [()], strict=True):
            if value in self.used:
                self.nodes[value] = self._item(node, path)

    def _operand_node(self, item: Any) -> Any:
        return self.nodes[item.value] if isinstance(item, Ref) else self.operand(item)

    def _item(self, node: fx.Node, path: tuple[int, ...]) -> fx.Node:
        for index in path:
            node = self.program.call_function(operator.getitem, (node, index))
        return node

    def finish(self, name: str) -> fx.GraphModule:
        """Return the program with its tensors."""
        outputs = [self.nodes[value] for value in self.record.outputs]
        self.program.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        self.program.lint()
        return fx.GraphModule(self.root, self.program, name).eval()


def _target(op: Op) -> Callable:
    """Return what computes ``op`` when it is called with its arguments, as ``execute`` does."""
    if isinstance(op.func, str):
        return COMPOSITES[op.func]
    if op.name in ("aten.view", "aten._unsafe_view") and op.func._overloadname == "default":
        return torch.ops.aten.reshape.default
    return op.func


def _paths(result: Any) -> Iterator[tuple[int, ...]]:
    """Yield where each leaf of nested lists and tuples sits."""
    for i, item in enumerate(result):
        if isinstance(item, list | tuple):
            yield from ((i, *rest) for rest in _paths(item))
        else:
            yield (i,)
