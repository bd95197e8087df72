"""The step that lets weights share few values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Step
from .training import Training

if TYPE_CHECKING:
    from ...selection.clustering import Clusters

Bits = Annotated[int, Field(ge=0, le=12)]
_OF_RATE = ("softness", "moving_ratio")


class Cluster(Step):
    """Let weights share few values, and train those. Weights that are masked stay zero.

    Whatever trains or cuts the network later, weights that share a value go on sharing it.
    """

    kind: Literal["cluster"] = "cluster"
    bits: Bits | None = None
    """at most 2^bits values in every tensor of weights that layers does not name; under a budget, the most bits"""
    layers: Mapping[str, Bits] = {}
    """bits of layers or tensors by name, where * and ? match; where several match, the last"""
    keep: tuple[str, ...] = ()
    """names of layers or tensors that stay as they are; * and ? match"""
    only: tuple[str, ...] | None = None
    """cluster nothing but these"""
    size_bytes: int | None = Field(default=None, ge=1)
    """of the encoded file: every layer gets bits by how much the loss on training data rises with fewer of them"""
    size_ratio: float | None = Field(default=None, gt=0, le=1)
    """likewise, as a share of the dense network's tensors in memory"""
    sensitivity_batches: int = Field(default=8, ge=1)
    """training batches that bits are chosen on"""
    per: Literal["tensor", "channel"] = "tensor"
    """a codebook for each tensor, or for each channel of its first dimension"""
    start: Literal["linear", "density", "kmeans++"] = "linear"
    """where k-means begins: evenly over the range, evenly over the weights, or drawn far from each other"""
    rate: float = Field(default=0.0, ge=0)
    """weight in the loss of the bits that an entropy coder needs for each weight: weights move to cheaper symbols"""
    softness: float = Field(default=0.5, gt=0)
    """of rate: how far a weight feels other values, in mean distances between them"""
    moving_ratio: float = Field(default=0.7, gt=0, le=1)
    """of rate: share of finetune's steps in which weights move between values; then only the values are trained"""
    vector_bits: int | None = Field(default=None, ge=1, le=23)
    """biases, norms and their statistics are rounded to this many bits of mantissa at the end of the step"""
    finetune: Training | None = None
    """training of the values; with rate, of the weights before it"""

    @property
    def limits_size(self) -> bool:
        """Whether bits are chosen under a budget."""
        return self.size_bytes is not None or self.size_ratio is not None

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        wrong = list(self._mistakes())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _mistakes(self) -> Iterator[str]:
        """Yield what does not go together."""
        trains = self.finetune is not None and self.finetune.epochs > 0
        if self.bits is None and not self.layers and not self.limits_size:
            yield "nothing is clustered: give bits, layers = {pattern = bits}, or size_bytes or size_ratio"
        if self.rate and not trains:
            yield "rate moves weights while the network is trained: give finetune with at least one epoch"
        if self.rate and self.finetune is not None and self.finetune.ema_decay is not None:
            yield "rate moves weights between values, of which an average means nothing: leave ema_decay out"
        for name in _OF_RATE if not self.rate else ():
            if getattr(self, name) != Cluster.model_fields[name].default:
                yield f"{name} is of rate: give rate"
        default = Cluster.model_fields["sensitivity_batches"].default
        if not self.limits_size and self.sensitivity_batches != default:
            yield "sensitivity_batches is of a budget: give size_bytes or size_ratio"

    def target(self, bits: Mapping[str, int] | None = None) -> Clusters:
        """Return what is asked for, as the engine takes it; ``bits`` by tensor where they were chosen."""
        from ...selection.clustering import Clusters  # torch is imported for those who cluster, not for `--help`

        if bits is not None:
            return Clusters(layers=bits, per=self.per, start=self.start)
        most = self.bits if self.bits is not None or not self.limits_size else 8
        return Clusters(bits=most, layers=self.layers, keep=self.keep, only=self.only, per=self.per, start=self.start)
