"""Gates: a trainable factor a unit, on the live model, inside a context.

    reading of a group ──▶ tensor dimension that silences it ──▶ tensor * gate, wherever PyTorch is handed the tensor

A gate acts where its units are read, on the columns of the reading weights: at 0 the network computes what the cut one
computes, whatever biases, norms and activations lie between the units' producers and their readers, and nothing else
changes (a skip branch is read by its own readers). At 1 nothing changes at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from ...core import ModelError, UnknownNameError
from ..graph import Graph
from ..kinds import check_graph
from ..recording.record import rebuild
from ..recording.tensors import named_tensors
from .readings import Reading, find_readings

_VALUES = {"T", "mT", "H", "mH", "data", "real", "imag"}  # properties that hand on a tensor's values


@contextmanager
def gates(model: nn.Module, graph: Graph, groups: Collection[str] | None = None) -> Iterator[dict[str, nn.Parameter]]:
    """Yield ``{group: gate}``, ones of shape (units,) that multiply the group's units in every forward inside.

        y = sum over units u of gate[u] * W[:, u] x[u]            (linear; convolutions and recurrences alike)

    A gate of 0 equals cutting the unit, a gate of 1 is the identity, and ``gate.grad`` is what backward leaves. Where
    activations meet activations (q k^T) no weight reads the units: their last affine factors are gated, on both sides
    if both have one, so such a gate acts by its square. A statistic over the group (layer norm over an embedding) is
    still taken over all units: see ``Group.statistics``. What nothing reads has a gate that does nothing. An optimizer
    that steps inside the context sees the weights as they are; a penalty on weights computed inside sees gated ones.

    Args:
        model: the model that ``graph`` was traced from, or any copy of it; only calls inside the context are gated.
        graph: from ``trace``.
        groups: names of groups; without it every group that can be gated.

    Raises:
        KindError: an argument is of another kind.
        UnknownNameError: no group of that name.
        ModelError: the model is not the traced one, or a named group is read where no weight can silence it.
    """
    check_graph("gates", model, graph, groups)
    tensors = traced_tensors(model, graph)
    factors: dict[int, list[tuple[int, Tensor, nn.Parameter]]] = {}
    made: dict[str, nn.Parameter] = {}
    for name, readings in chosen(graph, groups, find_readings).items():
        first = tensors[graph.groups[name].slots[0].tensor]
        made[name] = nn.Parameter(torch.ones(graph.sizes[name], dtype=first.dtype, device=first.device))
        for tensor, d, units in _gated_places(graph, name, readings):
            factors.setdefault(id(tensors[tensor]), []).append((d, units.to(first.device), made[name]))
    mode = _Gated(factors)
    with mode, resting_in_steps(mode):
        yield made


@torch.no_grad()
def fold_gates_(model: nn.Module, graph: Graph, values: Mapping[str, Tensor]) -> None:
    """Multiply the weights that read groups by what ``gates`` would multiply them by, in place: the same function.

    Args:
        model: the model that ``graph`` was traced from, or any copy of it; outside any context of ``gates``.
        graph: from ``trace``.
        values: ``{group: gate of each unit}``.

    Raises:
        KindError, UnknownNameError, ModelError: as ``gates``.
    """
    check_graph("fold_gates_", model, graph, list(values))
    tensors = traced_tensors(model, graph)
    for name, readings in chosen(graph, list(values), find_readings).items():
        for tensor, d, units in _gated_places(graph, name, readings):
            tensors[tensor].mul_(_factor(values[name], units, d, tensors[tensor].dim()))


def _gated_places(graph: Graph, name: str, readings: Collection[Reading]) -> Iterator[tuple[str, int, Tensor]]:
    """Yield each tensor that silences a group, the dimension, and the unit at each position; ``size`` where none is."""
    group = graph.groups[name]
    for tensor, d in {place for one in readings for place in one.places}:
        units = torch.full((graph.shapes[tensor][d],), group.size)
        for slot in group.slots:
            if (slot.tensor, slot.dim) == (tensor, d):
                units[torch.from_numpy(slot.positions)] = torch.arange(group.size)[:, None]
        yield tensor, d, units


def _factor(gate: Tensor, units: Tensor, d: int, dims: int) -> Tensor:
    """Return a gate along a tensor's dimension."""
    factor = torch.cat([gate, gate.new_ones(1)])[units.to(gate.device)]  # the last stands for positions of no unit
    return factor.reshape([-1 if i == d else 1 for i in range(dims)])


def ungated() -> AbstractContextManager[Any]:
    """Return a context, inside that of ``gates``, in which the model's tensors are themselves, and nothing is tapped.

    What is computed of weights there is of the weights as they are; ``torch.autograd.grad`` by weights needs it.
    """
    return torch._C.DisableTorchFunction()


def traced_tensors(model: nn.Module, graph: Graph) -> dict[str, Tensor]:
    """Return the model's tensors by name.

    Raises:
        ModelError: they are not those that were traced.
    """
    tensors = named_tensors(model)
    for name in graph.leaves:
        if name not in tensors or tuple(tensors[name].shape) != graph.shapes[name]:
            raise ModelError(f"this model is not the traced one: {name!r} differs. Trace this model")
    return tensors


def chosen(graph: Graph, groups: Collection[str] | None, find: Callable[[Graph, str], Any]) -> dict[str, Any]:
    """Return ``{group: find(graph, group)}``: of the named groups, or of all for which it raises no ModelError.

    Raises:
        UnknownNameError: no group of that name.
        ModelError: a named group cannot be served.
    """
    found = {}
    for name in graph.groups if groups is None else groups:
        if name not in graph.groups:
            raise UnknownNameError("group", name, graph.groups)
        try:
            found[name] = find(graph, name)
        except ModelError:
            if groups is not None:
                raise
    return found


def hands_on(func: Any, name: str) -> bool:
    """Whether a PyTorch function uses its operands' values, and does not write into them."""
    if name == "__get__":
        return getattr(func.__self__, "__name__", "") in _VALUES
    in_place = name.endswith("_") and not name.endswith("__")
    return not in_place and name not in ("__set__", "__setitem__", "size", "dim")


class Watching(TorchFunctionMode):
    """A mode that rests while an optimizer steps: weights are not read there."""

    resting = False


@contextmanager
def resting_in_steps(mode: Watching) -> Iterator[None]:
    """Let a mode rest during every optimizer's step inside the context."""

    def rest(*_: Any) -> None:
        mode.resting = True

    def wake(*_: Any) -> None:
        mode.resting = False

    handles = [register_optimizer_step_pre_hook(rest), register_optimizer_step_post_hook(wake)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Gated(Watching):
    """Hands gated tensors to every PyTorch function in place of the model's own."""

    def __init__(self, factors: Mapping[int, list[tuple[int, Tensor, nn.Parameter]]]) -> None:
        super().__init__()
        self.factors = factors

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not self.resting and hands_on(func, getattr(func, "__name__", "")):
            args, kwargs = rebuild(args, self._gated), rebuild(kwargs, self._gated)
        return func(*args, **(kwargs or {}))

    def _gated(self, item: Any) -> Any:
        if not isinstance(item, Tensor) or id(item) not in self.factors:
            return item
        result: Tensor = item
        for d, units, gate in self.factors[id(item)]:
            result = result * _factor(gate, units, d, item.dim())
        return result
