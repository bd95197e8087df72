"""Clusters under a rate: weights move to symbols that cost fewer bits while the network is trained, then settle.

    L = task loss + rate x (bits a weight of soft assignments)          `losses.rate`, over all clustered tensors

    moving    the network shows the value of each weight's nearest centroid, and real weights behind it are trained:
              the loss passes straight through, the rate pulls towards frequent symbols; after each step of the
              optimizer a centroid is the mean of the real weights that are nearest to it
    settled   each weight keeps its symbol (`graph.sharing`), and centroids are trained with the sum of the gradients

The number 0 is a symbol as any other while weights move, and never moves itself; masked weights are there and stay.
It is mostly the most frequent one, so that the rate prunes on.

*Source*: Agustsson et al., Soft-to-hard vector quantization, NeurIPS 2017, arXiv:1704.00648, sections 3 and 5 for the
rate and the training towards hard assignments; Han, Mao and Dally, arXiv:1510.00149, section 3.3 for the centroids.
*Differs*: (1) the forward pass has the hard values from the beginning, with straight-through gradients, where the
paper's has soft ones that harden by annealing; (2) centroids are k-means' instead of learnt by gradients while weights
move; (3) numbers are clustered one by one, a codebook a tensor or a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ...graph.masks import masks_of
from ...graph.recording.tensors import named_tensors
from ...graph.sharing import ZERO, Sharing, share_
from ...losses import rate as bits_of
from ...selection.clustering import Clusters, choose_sharing
from ..protocol import Context, MethodError, Stored

if TYPE_CHECKING:
    from ...graph import Graph


@dataclass(eq=False)
class _Part:
    """One codebook: of a tensor, or of a channel of one.

    Attributes:
        places: flat places in the tensor of the weights that are not masked.
        masked: how many are.
        real: (n,) the real weights, with the gradient of the rate.
        values: (k,) ascending: the centroids and the number 0.
        zero: where the number 0 is in them.
    """

    places: Tensor
    masked: int
    real: Tensor
    values: Tensor
    zero: int

    def nearest(self) -> Tensor:
        """Return the symbols of the nearest values."""
        return torch.bucketize(self.real.detach(), (self.values[:-1] + self.values[1:]) / 2)

    def refit(self) -> None:
        """Make each value but 0 the mean of the weights that are nearest to it."""
        symbols = self.nearest()
        counts = torch.bincount(symbols, minlength=len(self.values))
        sums = torch.bincount(symbols, weights=self.real.detach().double(), minlength=len(self.values))
        means = torch.where(counts > 0, sums / counts.clamp(min=1), self.values.double()).to(self.values.dtype)
        means[self.zero] = 0.0
        self.values = means

    def rate(self, softness: float) -> Tensor:
        """Return the bits of all its weights together, masked ones too."""
        fixed = torch.zeros_like(self.values)
        fixed[self.zero] = self.masked
        return bits_of(self.real, self.values, softness, fixed) * (len(self.real) + self.masked)


@dataclass(eq=False)
class _State:
    """A network under way.

    Attributes:
        model: the network.
        weights: those that are clustered, by name.
        parts: their codebooks.
        before: what the weights were at the start: a network that had settled is that again when it goes on.
        steps: after which it settles.
        step: so far.
        settled: whether weights keep their symbols.
    """

    model: nn.Module
    weights: dict[str, Tensor]
    parts: dict[str, list[_Part]]
    before: dict[str, Tensor]
    steps: int
    step: int = 0
    settled: bool = False

    @property
    def total(self) -> int:
        """How many weights are clustered."""
        return sum(weight.numel() for weight in self.weights.values())


@dataclass(frozen=True, kw_only=True)
class SoftToHard:
    """Cluster under a rate, and settle before the end.

    Attributes:
        target: what is clustered, and how it begins.
        rate: weight of the bits a weight in the loss.
        softness: of the assignments that the rate is of, in mean distances between values.
        moving_ratio: share of the steps in which weights move between symbols.
    """

    TAKES: ClassVar[frozenset[str]] = frozenset()

    target: Clusters
    rate: float = 1.0
    softness: float = 0.5
    moving_ratio: float = 0.7

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.rate < 0 or self.softness <= 0 or not 0 < self.moving_ratio <= 1:
            raise MethodError(
                f"rate is 0 or more, softness above 0, moving_ratio in (0, 1]; got {self.rate:g}, {self.softness:g} "
                f"and {self.moving_ratio:g}"
            )

    def start(self, model: nn.Module, graph: Graph, context: Context) -> _State:
        """Return the state for a stretch of training; the network shows clustered weights from here on."""
        weights = named_tensors(model)
        sharing = choose_sharing(model, self.target, generator=context.generator)
        own = {name: weights[name] for name in sharing.symbols}
        masks, per_channel = masks_of(model).kept, self.target.per == "channel"
        parts = {
            name: _parts(weight, masks.get(name), sharing.symbols[name], per_channel=per_channel)
            for name, weight in own.items()
        }
        before = {name: weight.detach().clone() for name, weight in own.items()}
        state = _State(model, own, parts, before, max(1, round(self.moving_ratio * context.steps)))
        self._show(state)
        return state

    def penalty(self, state: _State, batch: tuple[Any, Any], outputs: Any) -> Tensor | float:
        """Return the rate of the real weights."""
        if state.settled or not self.rate:
            return 0.0
        bits = [part.rate(self.softness) for parts in state.parts.values() for part in parts if len(part.real)]
        return self.rate * torch.stack(bits).sum() / state.total if bits else 0.0

    @torch.no_grad()
    def gradients(self, state: _State, lr: float) -> None:
        """Put the real weights into the network, and what the rate asks of them into their gradients."""
        if state.settled:
            return
        for name, weight in state.weights.items():
            flat = weight.detach().clone().flatten()  # a view of what is written to below would overlap with it
            grad = None if weight.grad is None else weight.grad.clone().flatten()
            for part in state.parts[name]:
                flat[part.places] = part.real.detach()
                if grad is not None and part.real.grad is not None:
                    grad[part.places] += part.real.grad
                part.real.grad = None
            weight.copy_(flat.view(weight.shape))
            if weight.grad is not None and grad is not None:
                weight.grad.copy_(grad.view(weight.shape))

    @torch.no_grad()
    def step(self, state: _State) -> None:
        """Take the real weights out again, fit the centroids and show them; settle when it is time."""
        if state.settled:
            return
        state.step += 1
        for name, weight in state.weights.items():
            flat = weight.detach().flatten()
            for part in state.parts[name]:
                part.real = flat[part.places].requires_grad_()
                part.refit()
        self._show(state)
        if state.step >= state.steps:
            self._settle(state)

    def after_cut(self, state: _State, model: nn.Module, graph: Graph) -> None:
        """Refuse: this method cuts nothing.

        Raises:
            MethodError: always.
        """
        raise MethodError("the network was cut while its weights move between clusters: cut it before")

    def stop(self, state: _State) -> None:
        """Settle, where training ended before it was time to."""
        if not state.settled:
            self._settle(state)

    def stored(self, state: _State) -> Stored:
        """Return what a checkpoint must keep; once settled, the sharing is the network's own."""
        kept: dict[str, Any] = {"step": state.step, "settled": state.settled}
        for name, parts in state.parts.items() if not state.settled else ():
            for place, part in enumerate(parts):
                kept[f"real/{place}/{name}"] = part.real.detach().clone()
                kept[f"values/{place}/{name}"] = part.values.clone()
                kept[f"zero/{place}/{name}"] = part.zero
        return kept

    def resume(self, state: _State, stored: Stored) -> None:
        """Go on from a checkpoint."""
        step, settled = stored["step"], stored["settled"]
        assert isinstance(step, int) and isinstance(settled, bool)
        state.step, state.settled = step, settled
        for name, parts in state.parts.items() if not settled else ():
            for place, part in enumerate(parts):
                part.real = _tensor(stored, f"real/{place}/{name}").to(part.real.device).requires_grad_()
                part.values = _tensor(stored, f"values/{place}/{name}").to(part.values.device)
                zero = stored[f"zero/{place}/{name}"]
                assert isinstance(zero, int)
                part.zero = zero
        if not settled:
            self._show(state)
        with torch.no_grad():
            for name, weight in state.weights.items() if settled else ():
                weight.copy_(state.before[name])

    @torch.no_grad()
    def _show(self, state: _State) -> None:
        for name, weight in state.weights.items():
            flat = torch.zeros(weight.numel(), dtype=weight.dtype, device=weight.device)
            for part in state.parts[name]:
                flat[part.places] = part.values[part.nearest()]
            weight.copy_(flat.view(weight.shape))

    def _settle(self, state: _State) -> None:
        """Let the network carry which weights share a value from now on."""
        found: dict[str, Tensor] = {}
        for name, weight in state.weights.items():
            symbols = torch.zeros(weight.numel(), dtype=torch.int32)
            after = 0
            for part in state.parts[name]:
                own = part.nearest().cpu()
                numbered = (own + after + 1).where(own != part.zero, ZERO)
                symbols[part.places.cpu()] = numbered.to(torch.int32)
                after += len(part.values)
            found[name] = symbols.view(weight.shape)
        share_(state.model, Sharing(found))
        state.settled = True


def _parts(weight: Tensor, kept: Tensor | None, symbols: Tensor, *, per_channel: bool) -> list[_Part]:
    """Return a tensor's codebooks, each at the means of the clusters that k-means found."""
    flat, size = weight.detach().flatten(), weight.numel()
    left = torch.ones(size, dtype=torch.bool) if kept is None else kept.flatten().cpu()
    channels = len(weight) if per_channel else 1
    found = []
    for places in torch.arange(size).view(channels, -1):
        own = places[left[places]]
        real = flat[own.to(flat.device)].clone()
        _, of = symbols.flatten()[own].unique(return_inverse=True)
        sums = torch.bincount(of, weights=real.cpu().double())
        values = (sums / torch.bincount(of)).to(real.dtype).sort().values
        values = torch.cat([values[values < 0], values.new_zeros(1), values[values > 0]])
        zero = int((values < 0).sum())
        part = _Part(own.to(flat.device), len(places) - len(own), real, values.to(flat.device), zero)
        part.real.requires_grad_()
        found.append(part)
    return found


def _tensor(stored: Mapping[str, Any], name: str) -> Tensor:
    value = stored[name]
    assert isinstance(value, Tensor)
    return value.clone()
