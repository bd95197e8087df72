"""Taps: what each unit carries where it is read, and the gradient of its gate, a sample at a time.

    reader(x, W)   becomes   reader(alias of x, W):  the alias sees this reader's gradient alone, not a skip branch's

    gate gradient[s, u] = sum over readings, sum over positions of u:  x[s, u, .] * dL/dx[s, u, .]

A reader is a product with a weight: linear, convolution, matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...core import ModelError
from ..graph import Graph
from ..kinds import check_graph
from ..recording.record import walk
from .gates import Watching, chosen, hands_on, resting_in_steps, traced_tensors
from .readings import find_readings
from .silence import Place

Read = Callable[[Tensor], Tensor]

# {function: (the argument that is read, the weight, the dimension of the weight's columns)}
_READERS = {"linear": (0, 1, 1), "matmul": (0, 1, -2), "__matmul__": (0, 1, -2), "mm": (0, 1, -2), "addmm": (1, 2, -2)}
_READERS |= {f"conv{n}d": (0, 1, 1) for n in (1, 2, 3)} | {f"conv_transpose{n}d": (0, 1, 0) for n in (1, 2, 3)}
_TURNS = {"t", "T", "mT", "transpose", "swapaxes"}


@dataclass(frozen=True, eq=False)
class Reader:
    """A call that reads a group.

    Attributes:
        name: of the function: "linear", "conv2d", "matmul", ...
        args, kwargs: what it is given.
        x: the activation among them, and ``dim`` its dimension of channels.
        positions: where the group's units sit there, (units, k).
    """

    name: str
    args: tuple
    kwargs: dict[str, Any]
    x: Tensor
    dim: int
    positions: Tensor


Watcher = Callable[[str, Reader], None]


def average(x: Tensor) -> Tensor:
    """Return the mean over a unit's positions: (samples, units, rest) to (samples, units)."""
    return x.mean(2)


@dataclass(eq=False)
class Tap:
    """What one group's readers saw in the last forward.

    Attributes:
        group: its name.
        units: how many it has.
        missed: a function that was handed a weight that reads the group, and is no known reader; or "".
    """

    group: str
    units: int
    _readings: list[Tensor] = field(default_factory=list)
    _gradients: list[Tensor] = field(default_factory=list)
    missed: str = ""

    @property
    def readings(self) -> list[Tensor]:
        """Return what ``read`` made of each activation (samples, units, rest), in the order of the forward.

        Raises:
            ModelError: not all of them were seen.
        """
        if self.missed:
            raise ModelError(f"group {self.group!r} cannot be tapped: {self.missed} reads it, and hides how")
        return list(self._readings)

    @property
    def ready(self) -> bool:
        """Whether a backward pass has left gradients since the last forward."""
        return bool(self._gradients)

    def gradients(self) -> Tensor:
        """Return dL/dgate of each sample, (samples, units), after backward of a loss that sums over samples.

        A reader that sees several rows a sample (windows, flattened tokens) has them one after the other.

        Raises:
            ModelError: no backward pass was made, or the readers' rows do not belong to the same samples.
        """
        found = self.gradients_by_reader()
        if not self.readings or not found:
            raise ModelError(f"group {self.group!r} has no gradients: run backward, inside taps(..., gradients=True)")
        samples = min(len(one) for one in found)
        if any(len(one) % samples for one in found):
            raise ModelError(f"group {self.group!r}: its readers see different numbers of samples")
        return torch.stack([one.reshape(samples, -1, self.units).sum(1) for one in found]).sum(0)

    def gradients_by_reader(self) -> list[Tensor]:
        """Return the parts of dL/dgate: (rows, units) of each reader that backward reached, the last one first.

        Raises:
            ModelError: not all readers were seen.
        """
        return list(self._gradients) if self.readings else []

    def clear(self) -> None:
        """Forget everything; each forward of the model begins with it."""
        self._readings, self._gradients, self.missed = [], [], ""


@contextmanager
def taps(
    model: nn.Module,
    graph: Graph,
    groups: Collection[str] | None = None,
    *,
    gradients: bool = False,
    read: Read = average,
    watch: Watcher | None = None,
) -> Iterator[dict[str, Tap]]:
    """Yield ``{group: tap}`` that hold, after each forward inside the context, what the group's readers saw.

    Args:
        model: the model that ``graph`` was traced from, or any copy of it.
        graph: from ``trace``.
        groups: names of groups; every group that can be tapped without it.
        gradients: also keep what gate gradients need, until backward.
        read: makes of a detached activation (samples, units, rest) what is kept; (samples, units) by default;
            it copies what is to outlast the forward.
        watch: also called with each group's name and the call that reads it, before it runs.

    Raises:
        KindError: an argument is of another kind.
        UnknownNameError: no group of that name.
        ModelError: the model is not the traced one, or a named group is read by no weight that a tap can watch.
    """
    check_graph("taps", model, graph, groups)
    tensors = traced_tensors(model, graph)
    own = chosen(graph, groups, _sites)
    found = {name: Tap(name, graph.sizes[name]) for name in own}
    sites: dict[Place, list[tuple[Tap, Tensor]]] = {}
    for name, tap in found.items():
        for place, positions in own[name].items():
            sites.setdefault(place, []).append((tap, positions))
    mode = _Watch(tensors, sites, read, gradients)
    mode.watch = watch

    def begin(*_: Any) -> None:
        mode.derived.clear()
        for tap in found.values():
            tap.clear()

    handle = model.register_forward_pre_hook(begin)
    try:
        with mode, resting_in_steps(mode):
            yield found
    finally:
        handle.remove()


def _sites(graph: Graph, group: str) -> dict[Place, Tensor]:
    """Return ``{weight and its dimension: where the units sit in what it reads}``."""
    sites: dict[Place, Tensor] = {}
    for one in find_readings(graph, group):
        for place in one.places:
            positions = None if one.positions is None or not one.weight else torch.from_numpy(one.positions)
            if positions is None or not torch.equal(sites.setdefault(place, positions), positions):
                where = f" at {one.source}" if one.source else ""
                raise ModelError(f"group {group!r} cannot be tapped: what reads it{where} is no product with a weight")
    return sites


class _Watch(Watching):
    """Sees the calls that read a watched weight, or what is computed from weights alone."""

    watch: Watcher | None = None

    def __init__(
        self, tensors: dict[str, Tensor], sites: dict[Place, list[tuple[Tap, Tensor]]], read: Read, gradients: bool
    ) -> None:
        super().__init__()
        self.sites, self.read, self.gradients = sites, read, gradients
        self.own = {id(t): (t, frozenset([(name, False)])) for name, t in tensors.items()}
        self.derived: dict[int, tuple[Tensor, frozenset[tuple[str, bool]]]] = {}

    def known(self, item: Any) -> frozenset[tuple[str, bool]] | None:
        """Return which tensors of the model an operand is made of, and whether it is turned; None if of others."""
        found = self.own.get(id(item)) or self.derived.get(id(item))
        return found[1] if found else None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if self.resting or not hands_on(func, name):
            return func(*args, **kwargs)
        operands = [item for item in walk((args, kwargs)) if isinstance(item, Tensor)]
        made_of = [self.known(item) for item in operands]
        if operands and None not in made_of:
            result = func(*args, **kwargs)
            self._derive(result, func, name, frozenset().union(*made_of))  # type: ignore[arg-type]
            return result
        if any(made_of):
            args, kwargs = self._tapped(name, args, kwargs, made_of)
        return func(*args, **kwargs)

    def _derive(self, result: Any, func: Any, name: str, made_of: frozenset[tuple[str, bool]]) -> None:
        turn = (func.__self__.__name__ if name == "__get__" else name) in _TURNS
        for item in walk(result if isinstance(result, list | tuple) else [result]):
            if isinstance(item, Tensor) and id(item) not in self.own:
                self.derived[id(item)] = (item, frozenset((tensor, turned != turn) for tensor, turned in made_of))

    def _tapped(self, name: str, args: tuple, kwargs: dict, made_of: Sequence) -> tuple[tuple, dict]:
        """Record what a reader reads, and give it an alias of its own where gradients are wanted."""
        spec = _READERS.get(name)
        names = ("input", "weight") if name.startswith(("linear", "conv")) else ("", "")
        if spec is None or self._operand(args, kwargs, spec[1], names[1]) is None:
            self._miss(name, made_of)
            return args, kwargs
        x, weight = (self._operand(args, kwargs, spec[i], names[i]) for i in (0, 1))
        sites = self._read_here(x, weight, spec[2])
        if not sites:
            return args, kwargs
        if self.gradients and torch.is_grad_enabled():
            x = x.view_as(x) if x.requires_grad else x.detach().requires_grad_()
        dim = x.dim() - 1 if not name.startswith("conv") else x.dim() - weight.dim() + 1
        for tap, positions in sites:
            if self.watch is not None:
                self.watch(tap.group, Reader(name, args, kwargs, x.detach(), dim, positions))
            self._keep(tap, x, dim, positions)
        if len(args) > spec[0]:
            return (*args[: spec[0]], x, *args[spec[0] + 1 :]), kwargs
        return args, {**kwargs, names[0]: x}

    @staticmethod
    def _operand(args: tuple, kwargs: dict, index: int, name: str) -> Any:
        return args[index] if len(args) > index else kwargs.get(name)

    def _read_here(self, x: Tensor, weight: Tensor, columns: int) -> list[tuple[Tap, Tensor]]:
        """Return the taps of a product of ``x`` with the columns of ``weight``."""
        found = []
        for tensor, turned in (self.known(weight) or ()) if self.known(x) is None else ():
            d = columns % weight.dim()
            d = weight.dim() - 1 if turned and d == weight.dim() - 2 else weight.dim() - 2 if turned else d
            found.extend(self.sites.get((tensor, d), []))
        return found

    def _miss(self, name: str, made_of: Sequence) -> None:
        """Remember that a watched weight went into a function that is no known reader."""
        if name == "embedding":
            return
        tensors = {tensor for one in made_of if one for tensor, _ in one}
        for (tensor, _), taps_here in self.sites.items():
            for tap, _ in taps_here if tensor in tensors else ():
                tap.missed = tap.missed or name

    def _keep(self, tap: Tap, x: Tensor, dim: int, positions: Tensor) -> None:
        rows = x if x.dim() > 1 and dim > 0 else x.unsqueeze(0)
        dim = dim if rows is x else dim + 1

        flat = positions.flatten()
        whole = len(flat) == rows.shape[dim] and bool((flat == torch.arange(len(flat))).all())

        def by_unit(tensor: Tensor) -> Tensor:
            picked = tensor.detach().movedim(dim, 1)
            picked = picked if whole else picked.index_select(1, flat.to(tensor.device))
            return picked.reshape(len(tensor), len(positions), -1)

        seen = by_unit(rows)
        tap._readings.append(self.read(seen))
        if self.gradients and whole:
            seen = seen.clone()  # the model may write into what it has read
        if self.gradients and x.requires_grad:
            shape = rows.shape
            x.register_hook(lambda g: tap._gradients.append((seen * by_unit(g.reshape(shape))).sum(2)))
