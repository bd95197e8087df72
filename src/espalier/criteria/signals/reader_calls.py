"""Reader calls: the product with a weight that reads a group, as a regression on the group's channels.

    features  (blocks, rows, channels a block * taps)   what the weight multiplies at sampled output positions
    matrix    (blocks, outputs a block, channels a block * taps)   the weight

A block is a convolution's group. Channels come in the order of the activation that is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...graph import ranks
from ...graph.probes.regressions import KINDS, Call, Kind
from ...graph.probes.taps import Reader, taps
from .activations import Sums, add, totals
from .passes import STOPPED, Batches, each_batch, untouched
from .slices import slot_parameters, widened

if TYPE_CHECKING:
    from ...graph import Graph


@dataclass(frozen=True, eq=False)
class ReaderCall:
    """One call.

    Attributes:
        group: the name of the group.
        number: of the call among those that read the group in a forward, from 0.
        kind: how the function applies its weight.
        call: its arguments by name.
        positions: where the group's units sit among the channels, (units, k).
        dim: the activation's dimension of channels.
    """

    group: str
    number: int
    kind: Kind
    call: Call
    positions: Tensor
    dim: int

    @property
    def x(self) -> Tensor:
        """The activation, at least float32."""
        return widened(self.call["input"].detach())

    @property
    def channels(self) -> int:
        """How many channels it has."""
        return self.x.shape[self.dim]

    @property
    def blocks(self) -> int:
        """How many groups the convolution has."""
        return self.call.get("groups", 1)

    def matrix(self) -> Tensor:
        """Return the weight, (blocks, outputs, channels a block * taps), at least float32."""
        return widened(self.kind.matrix(self.call["weight"].detach(), self.blocks))

    def column_sums(self, pointwise: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the sum over each channel's weights, (channels,)."""
        return pointwise(self.matrix()).sum(1).reshape(self.channels, -1).sum(1)

    def share(self, positions: int) -> float:
        """Return how many places of the output there are for each that ``features`` takes."""
        count = self._output_shape()[1:].numel()
        return count / min(count, positions)

    def features(self, positions: int) -> Tensor:
        """Return what the weight multiplies at up to ``positions`` places of each sample, evenly spread."""
        call = {**self.call, "input": self.x}
        shape = self._output_shape()
        spots = torch.arange(shape[1:].numel(), device=self.x.device)
        if len(spots) > positions:
            spots = spots[torch.linspace(0, len(spots) - 1, positions, device=spots.device).round().long()]
        samples = torch.arange(shape[0], device=self.x.device).repeat_interleave(len(spots))
        rest = torch.unravel_index(spots.repeat(shape[0]), shape[1:]) if len(shape) > 1 else ()
        return self.kind.features(call, (samples, *rest))

    def units(self) -> Tensor:
        """Return which unit each channel belongs to, (channels,); the number of units where to none."""
        found = torch.full((self.channels,), len(self.positions), device=self.x.device)
        numbers = torch.arange(len(self.positions), device=self.x.device)[:, None]
        found[self.positions.to(self.x.device)] = numbers.expand(self.positions.shape)
        return found

    def with_weights(self, numbers: Tensor) -> Tensor:
        """Return numbers a channel beside the weights that read it, (3, units, k): numbers, sum of |W|, and one.

        Sums over batches of the second over those of the third are the weights again.
        """
        columns = self.column_sums(torch.abs)
        rows = torch.stack([numbers.double(), columns.double(), torch.ones_like(numbers, dtype=torch.float64)])
        return rows[:, self.positions.to(numbers.device)]

    def _output_shape(self) -> torch.Size:
        """Return the output's shape without its channels."""
        weight = self.call["weight"]
        if self.x.dim() == self.dim + 1:
            return self.x.shape[:-1] if self.x.dim() > 1 else torch.Size([1])
        convolve = getattr(functional, f"conv{'_transpose' if self.kind.outputs else ''}{weight.dim() - 2}d")
        tensors = {name: self.call[name].to("meta") for name in ("input", "weight")}
        rest = {k: v for k, v in self.call.items() if k not in ("input", "weight", "bias")}
        shape = convolve(tensors["input"], tensors["weight"], None, **rest).shape
        channels = len(shape) - weight.dim() + 1
        return torch.Size([*shape[:channels], *shape[channels + 1 :]]) if channels else torch.Size([1, *shape[1:]])


def call_sums(
    model: nn.Module, graph: Graph, batches: Batches, take: Callable[[ReaderCall], Tensor | None]
) -> tuple[Sums, float]:
    """Return ``{group: [sums over batches, a reading]}`` over all ranks, and how many samples there were.

    Args:
        take: makes of a call the numbers that are added up; None where it says nothing, and then its group has no
            sums at all.

    Raises:
        ModelError: as ``each_batch``, or a model that is not the one that was traced.
    """
    slot_parameters(model, graph)
    sums, samples = ranks.together(partial(_own_sums, model, graph, batches, take), otherwise=STOPPED)
    found = totals({**sums, "": [torch.tensor(samples, dtype=torch.float64, device=_device(model))]})
    return {name: one for name, one in found.items() if name}, float(found[""][0])


def weighed(
    model: nn.Module,
    graph: Graph,
    batches: Batches,
    take: Callable[[ReaderCall], Tensor],
    size: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Return what units send to their readers, for groups that are read.

        score[u] = sum over readers, channels c of u ( size( mean over samples ( take[c] ) ) * sum_i | W[i, c] | )

    Args:
        take: makes of a call ``with_weights`` of a number a channel, summed over samples.
        size: of the mean.

    Raises:
        ModelError: as ``call_sums``.
    """
    sums, samples = call_sums(model, graph, batches, take)

    def score(one: Tensor) -> Tensor:
        numbers, weights, seen = one
        return (size(numbers / samples) * weights / seen).sum(1)

    return {name: torch.stack([score(one) for one in readings]).sum(0) for name, readings in sums.items() if readings}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _own_sums(
    model: nn.Module, graph: Graph, batches: Batches, take: Callable[[ReaderCall], Tensor | None]
) -> tuple[Sums, int]:
    sums: Sums = {}
    now: dict[str, list[Tensor]] = {}
    silent: set[str] = set()
    samples = 0

    def watch(group: str, reader: Reader) -> None:
        own = now.setdefault(group, [])
        call = bound(reader, group, len(own))
        taken = None if call is None else take(call)
        if taken is None:
            silent.add(group)
        else:
            own.append(taken)

    with untouched(model), torch.no_grad(), taps(model, graph, read=_nothing, watch=watch) as found:
        for seen in each_batch(model, batches):
            for name, new in now.items():
                add(sums, name, new)
            now.clear()
            samples += seen.samples
            silent |= {name for name, tap in found.items() if tap.missed}
    return {name: one for name, one in sums.items() if name not in silent}, samples


def bound(reader: Reader, group: str, number: int) -> ReaderCall | None:
    """Return a reader as a regression; None where it is of no known kind."""
    kind = KINDS.get(reader.name)
    if kind is None:
        return None
    call = kind.bind(reader.args, reader.kwargs, lambda one: False)
    fits = kind.fits(call) and (not kind.rank or call["weight"].dim() == kind.rank)
    return ReaderCall(group, number, kind, call, reader.positions, reader.dim) if fits else None


def _nothing(x: Tensor) -> Tensor:
    return x.new_empty(0)
