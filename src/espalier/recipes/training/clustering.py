"""Clusters in training: weights that have one value together move as one number, whatever is trained.

    dL/dC_k = sum over members of dL/dw        clip ──▶ gradients ──▶ optimizer.step ──▶ weights ──▶ average
    members <- the first member's value        after every step, and its moments when a stretch begins

The members of a cluster have one gradient, one weight and one momentum, so an optimizer that treats every number alike
(SGD, Adam, with weight decay) makes of the first one what it would make of the centroid alone; the others are set to
it, bit by bit, since vectorised arithmetic may round equal numbers differently at the ends of a tensor. ``clip_norm``
limits the gradients of the weights, before they are summed.

*Source*: Han, Mao and Dally, Deep Compression, ICLR 2016, arXiv:1510.00149, section 3.3, for the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...engines.engine import Engine, like, local
from ...graph.masks import masks_of
from ...graph.recording.tensors import named_tensors
from ...graph.sharing import ZERO, Sharing, sharing_of

if TYPE_CHECKING:
    from .learner import Learner


@dataclass(frozen=True, eq=False)
class _Clusters:
    """The clusters of one tensor, in what this rank holds of it.

    Attributes:
        order: flat places of the shared weights here, cluster by cluster.
        lengths: (clusters,): how many weights of each are here.
        leading: flat places of the first members that are here.
        led: their clusters.
        engine: whose ranks hold the rest of it, where it is in shards.
    """

    order: Tensor
    lengths: Tensor
    leading: Tensor
    led: Tensor
    engine: Engine

    def summed(self, values: Tensor) -> Tensor:
        """Return values with each member's place taken by the sum over its cluster; 0 where symbol 0 is."""
        ordered = values.reshape(-1)[self.order].double()
        sums = torch.segment_reduce(ordered, "sum", lengths=self.lengths, unsafe=True, initial=0.0)
        return self._spread(self._over_ranks(sums), values)

    def led_by_first(self, values: Tensor) -> Tensor:
        """Return values with each member's place taken by the first member's; 0 where symbol 0 is."""
        first = values.new_zeros(len(self.lengths))
        first[self.led] = values.reshape(-1)[self.leading]
        return self._spread(self._over_ranks(first), values)

    def _over_ranks(self, values: Tensor) -> Tensor:
        return self.engine.sum(values) if self.engine.shards else values

    def _spread(self, clusters: Tensor, values: Tensor) -> Tensor:
        flat = values.new_zeros(values.numel())
        flat[self.order] = clusters.to(values.dtype).repeat_interleave(self.lengths)
        return flat.view(values.shape)


class Clustering:
    """The clusters of a learner at work, or none: then every call costs nothing.

    Making one makes members equal in the weights, in the optimizer's moments and in the average.

    Attributes:
        sharing: what the learner's network carries, its masked weights at symbol 0.
    """

    def __init__(self, learner: Learner, engine: Engine) -> None:
        self.engine, self.learner = engine, learner
        self.masks, self.sharing = masks_of(learner.model), _masked(learner)
        tensors = named_tensors(learner.model) if self.sharing else {}
        self._own = {name: _found(symbols, tensors[name], engine) for name, symbols in self.sharing.symbols.items()}
        self._pairs = [(tensors[name], clusters) for name, clusters in self._own.items()]
        self.weights()
        self._moments()
        if learner.average is not None and self.sharing:
            learner.average.model.espalier_sharing = self.sharing  # type: ignore[assignment]
        self.average()

    def of(self, learner: Learner) -> Clustering:
        """Return this, or the clustering of what the learner's network carries now.

        A tensor that was not shared before begins without moments: those were of single weights.
        """
        if sharing_of(learner.model) is self.sharing and masks_of(learner.model) is self.masks:
            return self
        tensors = named_tensors(learner.model)
        for name in sharing_of(learner.model).symbols.keys() - self.sharing.symbols.keys():
            learner.optimizer.state.pop(tensors[name], None)
        return Clustering(learner, self.engine)

    @torch.no_grad()
    def gradients(self) -> None:
        """Give every member the gradient of its cluster."""
        for weight, clusters in self._pairs:
            if weight.grad is not None:
                grad = local(weight.grad)
                grad.copy_(clusters.summed(grad))

    @torch.no_grad()
    def weights(self) -> None:
        """Make the members of each cluster equal."""
        for weight, clusters in self._pairs:
            here = local(weight)
            here.copy_(clusters.led_by_first(here))

    @torch.no_grad()
    def average(self) -> None:
        """Make the members of each cluster equal in the average."""
        if self.learner.average is None or not self._own:
            return
        averaged = named_tensors(self.learner.average.model)
        for name, clusters in self._own.items():
            here = local(averaged[name])
            here.copy_(clusters.led_by_first(here))

    @torch.no_grad()
    def _moments(self) -> None:
        for weight, clusters in self._pairs:
            for value in self.learner.optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    here = local(value)
                    here.copy_(clusters.led_by_first(here))


def _masked(learner: Learner) -> Sharing:
    """Return the sharing that a learner's network carries, once its masked weights are at symbol 0."""
    sharing, masks = sharing_of(learner.model), masks_of(learner.model)
    within = sharing.without(~masks) if sharing and masks else sharing
    if within is not sharing:
        learner.model.espalier_sharing = within  # type: ignore[assignment]
    return within


def _found(symbols: Tensor, weight: Tensor, engine: Engine) -> _Clusters:
    """Return the clusters of a tensor where the weight is: of its shard where that is one."""
    flat = symbols.flatten()
    used, places = flat.unique(return_inverse=True)  # the same numbers on every rank
    ends = torch.full((len(used),), len(flat), device=flat.device)
    firsts = ends.scatter_reduce(0, places, torch.arange(len(flat), device=flat.device), "amin")
    leads = torch.zeros(len(flat), dtype=torch.uint8, device=flat.device).index_fill_(0, firsts, 1)
    here = local(like(places.view(symbols.shape), weight)).reshape(-1)
    leading = local(like(leads.view(symbols.shape), weight)).reshape(-1).bool()
    shared = (used != ZERO).to(here.device)
    order = torch.argsort(here, stable=True)
    order = order[shared[here[order]]]
    leading = (leading & shared[here]).nonzero().flatten()
    lengths = torch.bincount(here[order], minlength=len(used))
    return _Clusters(order, lengths, leading, here[leading], engine)
