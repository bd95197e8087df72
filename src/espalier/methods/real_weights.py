"""Real weights behind those that a network shows: training changes them, the network computes with Q(w).

    at rest         the parameter is Q(w), and w is here
    gradients       the parameter is w, and its gradient is dL/dw as the paper says
    after the step  w is what the optimizer left in the parameter, which is Q(w) again

``Quantizing`` has the verbs that such methods do alike. A paper's file says which weights, what Q is, and what becomes
of a gradient and of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ..core import ModelError, UnknownNameError
from ..graph.masks import masks_of
from ..graph.recording.tensors import aliases, named_tensors
from ..selection.patterns import tester
from .protocol import Context, MethodError, Stored

if TYPE_CHECKING:
    from ..graph import Graph

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_REAL = "real/"


@dataclass(eq=False)
class Real:
    """One layer's weight.

    Attributes:
        layer: the module's name.
        name: the tensor's.
        shown: the network's own parameter.
        value: w, of the parameter's shape.
        fans: (inputs, outputs) of the layer, each times the kernel's size.
    """

    layer: str
    name: str
    shown: nn.Parameter
    value: Tensor
    fans: tuple[int, int]

    @property
    def gradient(self) -> Tensor:
        """Return dL/dQ(w), which the backward pass left; zeros where the loss does not depend on it."""
        return torch.zeros_like(self.shown) if self.shown.grad is None else self.shown.grad


@dataclass(eq=False)
class Held:
    """The real weights of a network, in the order in which its layers are used."""

    reals: tuple[Real, ...]

    def __iter__(self) -> Iterator[Real]:
        return iter(self.reals)


@dataclass(frozen=True, kw_only=True)
class Quantizing(ABC):
    """What methods that hold real weights do alike.

    Attributes:
        keep: patterns of layers that stay as they are.
        only: patterns of the layers that are meant; all linear layers and convolutions when None.
        ends: whether the first and the last of all layers are meant too.

    ``HAS_ZERO`` says whether zero is one of the values, so that masked weights can stay what they are.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()
    HAS_ZERO: ClassVar[bool] = False

    keep: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    ends: bool = True

    @abstractmethod
    def quantized(self, state: Any, real: Real) -> Tensor:
        """Return Q(w)."""

    def gradient(self, state: Any, real: Real, lr: float) -> Tensor:
        """Return dL/dw from ``real.gradient``: straight through, unless the paper says otherwise."""
        return real.gradient

    def moved(self, state: Any, real: Real, after: Tensor) -> Tensor:
        """Return w after the optimizer has made ``after`` of it."""
        return after.clone()

    def start(self, model: nn.Module, graph: Graph, context: Context) -> Any:
        """Return the state for a stretch of training; the network shows Q(w) from here on."""
        state = Held(tuple(chosen(model, graph, self)))
        self.show(state)
        return state

    @torch.no_grad()
    def show(self, state: Held) -> None:
        """Put Q(w) into the network."""
        for real in state:
            real.shown.copy_(self.quantized(state, real))

    def penalty(self, state: Any, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Add nothing to the loss."""
        return 0.0

    @torch.no_grad()
    def gradients(self, state: Held, lr: float) -> None:
        """Put w into the network, and its gradient in place of Q(w)'s."""
        for real in state:
            real.shown.grad = self.gradient(state, real, lr)
            real.shown.copy_(real.value)

    @torch.no_grad()
    def step(self, state: Held) -> None:
        """Take w out of the network again, and put Q(w) in."""
        for real in state:
            real.value = self.moved(state, real, real.shown)
        self.show(state)

    def after_cut(self, state: Any, model: nn.Module, graph: Graph) -> None:
        """Refuse: this method cuts nothing.

        Raises:
            MethodError: always.
        """
        raise MethodError("the network was cut while real weights are held for it: cut it before")

    def stop(self, state: Any) -> None:  # noqa: B027  nothing is left open, and no method needs more
        """Leave Q(w) in the network; the real weights go with the state."""

    def stored(self, state: Held) -> Stored:
        """Return what a checkpoint must keep: the real weights."""
        return {_REAL + real.name: real.value for real in state}

    def resume(self, state: Held, stored: Stored) -> None:
        """Go on from a checkpoint."""
        for real in state:
            value = stored[_REAL + real.name]
            assert isinstance(value, Tensor)
            real.value = value.to(real.shown.device)
        self.show(state)


def chosen(model: nn.Module, graph: Graph, which: Quantizing) -> Iterator[Real]:
    """Yield the weights that a method is for, in the order in which the network uses its layers.

    Raises:
        UnknownNameError: a pattern matches no layer.
        ModelError: no layer is left.
        MethodError: a layer's weights are masked, and no weight can be zero.
    """
    layers = used_layers(model, graph)
    left = names_of(layers, which)
    tensors, first, masks = named_tensors(model), aliases(model), masks_of(model)
    seen: set[str] = set()
    for layer in left:
        name = f"{layer}.weight" if layer else "weight"
        name = first.get(name, name)
        parameter = tensors[name]
        assert isinstance(parameter, nn.Parameter)
        if name in masks.kept and not which.HAS_ZERO:
            raise MethodError(f"{name} is masked, and -1 and +1 leave no zero: keep this layer, or do not mask it")
        if name not in seen:
            seen.add(name)
            yield Real(layer, name, parameter, parameter.detach().clone(), _fans(layers[layer]))


def used_layers(model: nn.Module, graph: Graph) -> dict[str, nn.Module]:
    """Return the linear layers and convolutions by name, in the order in which the network uses them."""
    modules = {path: module for path, module in model.named_modules() if isinstance(module, _KINDS)}
    return {path: modules[path] for path in graph.records[0].returned if path in modules}


def names_of(layers: dict[str, nn.Module], which: Quantizing) -> list[str]:
    """Return the layers that a method is for.

    Raises:
        UnknownNameError: a pattern matches no layer.
        ModelError: no layer is left.
    """
    wanted = set(layers) if which.only is None else _matched(layers, which.only)
    wanted -= _matched(layers, which.keep)
    order = list(layers)
    if not which.ends:
        wanted -= {*order[:1], *order[-1:]}
    left = [layer for layer in order if layer in wanted]
    if not left:
        ends = "" if which.ends else "; the first and the last are never meant"
        raise ModelError(f"no linear layer or convolution is left to be binarised{ends} (there are {len(order)})")
    return left


def _matched(layers: dict[str, nn.Module], patterns: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        test = tester(pattern)
        own = {layer for layer in layers if test(layer)}
        if not own:
            raise UnknownNameError("pattern", pattern, layers, "Patterns match linear layers and convolutions.")
        found |= own
    return found


def _fans(layer: nn.Module) -> tuple[int, int]:
    """Return the layer's inputs and outputs, each times the kernel's size."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    kernel = weight[0, 0].numel()
    return weight.shape[1] * kernel, weight.shape[0] * kernel
