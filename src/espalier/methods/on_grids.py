"""Training on grids: the network shows weights on their grids and puts its layers' inputs on theirs; w is kept here.

    at rest         the parameter is step x integer, and carries that grid; w is here
    gradients       the parameter is w, its gradient dL/dw; the steps' own gradients are kept
    after the step  w is what the optimizer left; the steps move too, and the parameter is on its grid again

``OnGrids`` has the verbs that such methods do alike. A paper's file says what becomes of the steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..graph.carried_grids import Grids
from ..graph.grids import Grid, WeightGrid, grids_of, put_grids_, unquantize_
from ..graph.input_hooks import hook_of
from ..graph.recording.running import on_device
from ..graph.sharing import sharing_of
from ..transforms.calibration import Samples
from ..transforms.layers import Layer, matches
from ..transforms.quantization import Quantization, grids_for, prepare
from .protocol import Context, MethodError, Stored

if TYPE_CHECKING:
    from ..graph import Graph

_REAL, _STEP = "real/", "step/"


@dataclass(eq=False)
class Held:
    """The real weights of a network, and the grids that it shows.

    Attributes:
        model: in training.
        context: of the loop.
        real: ``{tensor: w}``.
        grids: ``{tensor: the grid that it is shown on}``.
        inputs: ``{layer: the grid of its input}`` of those that a method may move.
        more: what a method keeps beside these, as tensors by name.
    """

    model: nn.Module
    context: Context
    real: dict[str, Tensor]
    grids: dict[str, WeightGrid]
    inputs: dict[str, Grid] = field(default_factory=dict)
    more: dict[str, Tensor] = field(default_factory=dict)

    def each(self) -> Iterator[tuple[str, nn.Parameter, Tensor, WeightGrid]]:
        """Yield (name, the network's own parameter, w, its grid)."""
        for name, real in self.real.items():
            yield name, self.model.get_parameter(name), real, self.grids[name]

    @torch.no_grad()
    def show(self) -> None:
        """Put the weights on their grids into the network, and let it carry these."""
        for _, shown, real, grid in self.each():
            shown.copy_(grid.value(grid.integers(real), shown.dtype))
        grids = grids_of(self.model)
        weights = {**grids.weights, **{name: replace(one, step=one.step.clone()) for name, one in self.grids.items()}}
        self.model.espalier_grids = Grids({**grids.inputs, **self.inputs}, weights)  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class OnGrids:
    """What methods that train on grids do alike; their fields are these.

    Attributes:
        weight_bits, input_bits: of the layers; None leaves inputs floating-point numbers.
        bits: ``{pattern: bits}`` of single layers; * and ? match, the last that does.
        ends_bits: of the first and the last layer, where ``bits`` does not name them; None: as the others.
        keep: layers that stay as they are.
        inputs: as of ``transforms.Quantization``.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()

    weight_bits: int = 4
    input_bits: int | None = 4
    bits: dict[str, int] = field(default_factory=dict)
    ends_bits: int | None = 8
    keep: tuple[str, ...] = ()
    inputs: Literal["auto", "static", "dynamic"] = "auto"

    def start(self, model: nn.Module, graph: Graph, context: Context) -> Any:
        """Return the state for a stretch of training; the network shows weights on grids from here on.

        Raises:
            MethodError: the network's weights share values.
        """
        if sharing_of(model):
            raise MethodError("weights that share values cannot each move to a grid: quantize in the place of cluster")
        inputs = [pair[0] for pair in context.batches(1)]
        how = Quantization(
            weight_bits=self.weight_bits, input_bits=self.input_bits, bits=self.bits, keep=self.keep,
            inputs=self.inputs, fold=False, batches=1,
        )  # fmt: skip
        ready = prepare(model, [on_device(inputs[0], model)], how)
        ends = {one.path for one in (ready.layers[0], ready.layers[-1])} if self.ends_bits is not None else set()
        named = {one.path for one in ready.layers if any(matches(one, pattern) for pattern in self.bits)}
        own = {path: self.ends_bits for path in ends - named if self.ends_bits is not None}
        grids = grids_for(ready, replace(how, bits={**own, **self.bits}))
        started = self.started(grids, ready.samples)
        unquantize_(model)
        real = {name: model.get_parameter(name).detach().clone() for name in started.weights}
        put_grids_(model, Grids(started.inputs))
        moved = {path: one for path, one in started.inputs.items() if isinstance(one, Grid)}
        state = Held(model, context, real, dict(started.weights), moved)
        self.opened(state, {one.weight: one for one in ready.layers})
        state.show()
        return state

    def started(self, grids: Grids, samples: Mapping[str, Samples]) -> Grids:
        """Return the grids to begin with, from those whose error is least."""
        return grids

    def opened(self, state: Held, layers: Mapping[str, Layer]) -> None:
        """Prepare what a method needs beside the weights."""

    def moved(self, state: Held, lr: float) -> None:
        """Move the steps, and what else a method learns, after a step of the optimizer."""

    def gradient(self, state: Held, name: str, gradient: Tensor, levels: Tensor, grid: WeightGrid) -> Tensor:
        """Return dL/dw from that of the shown weight: straight through where nothing was clipped."""
        levels = levels.round()
        return gradient * ((levels >= grid.lowest) & (levels <= grid.highest))

    def penalty(self, state: Any, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Add nothing to the loss."""
        return 0.0

    @torch.no_grad()
    def gradients(self, state: Held, lr: float) -> None:
        """Put w into the network, and its gradient in place of the shown weight's."""
        state.more["lr"] = torch.tensor(lr)
        for name, shown, real, grid in state.each():
            if shown.grad is not None:
                shown.grad = self.gradient(state, name, shown.grad, real / grid.over(real.dim()), grid)
            shown.copy_(real)

    @torch.no_grad()
    def step(self, state: Held) -> None:
        """Take w out of the network again, move the steps, and show weights on their grids."""
        for _, shown, real, _ in state.each():
            real.copy_(shown)
        self.moved(state, float(state.more["lr"]))
        state.show()

    def after_cut(self, state: Any, model: nn.Module, graph: Graph) -> None:
        """Refuse: this method cuts nothing.

        Raises:
            MethodError: always.
        """
        raise MethodError("the network was cut while real weights are held for it: cut it before")

    def stop(self, state: Held) -> None:
        """Leave the weights on their grids; the real ones go with the state."""

    def stored(self, state: Held) -> Stored:
        """Return what a checkpoint must keep: real weights, steps, and what a method keeps beside them."""
        real = {_REAL + name: one for name, one in state.real.items()}
        steps = {_STEP + name: one.step for name, one in state.grids.items()}
        inputs: dict[str, Any] = {"inputs": Grids(state.inputs).to_data()["inputs"]}
        return {**real, **steps, **inputs, **{f"more/{name}": one for name, one in state.more.items()}}

    def resume(self, state: Held, stored: Stored) -> None:
        """Go on from a checkpoint."""
        values: dict[str, Any] = dict(stored)
        for name, _, real, grid in list(state.each()):
            real.copy_(values[_REAL + name])
            state.grids[name] = replace(grid, step=values[_STEP + name].to(real.device))
        for path, made in Grids.from_data({"inputs": values["inputs"], "weights": {}}).inputs.items():
            self.seen(state, path, made)
        more = {name.removeprefix("more/"): one for name, one in values.items() if name.startswith("more/")}
        for name, one in more.items():
            if name in state.more:
                state.more[name].data.copy_(one)
            else:
                state.more[name] = one
        self.resumed(state)
        state.show()

    def seen(self, state: Held, path: str, made: Any) -> None:
        """Put a layer's input on another grid."""
        state.inputs[path] = made
        hook = hook_of(state.model.get_submodule(path))
        assert hook is not None
        hook.made = made

    def resumed(self, state: Held) -> None:
        """Bring what ``opened`` prepared to where the checkpoint was taken."""
