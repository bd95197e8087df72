"""Which weights have one value together: those of a tensor, or of a channel, that k-means puts into one cluster.

    weights left of a tensor ──lloyd, at most 2^bits──▶ symbols 1, 2, ... by ascending value; masked ones are symbol 0

    r = n b / (n log2 k + k b)        how many times fewer bits n weights of b bits take as k values and their symbols

*Source*: Han, Mao and Dally, Deep Compression, ICLR 2016, arXiv:1510.00149, section 3 and equation 1.
*Differs*: (1) a codebook a channel of the first dimension too; (2) zeros that are not masked are clustered as any
number is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ..core import ModelError
from ..graph.masks import masks_of
from ..graph.recording.tensors import named_tensors
from ..graph.sharing import ZERO, Sharing, share_
from .lloyd import Start, lloyd
from .weights import weights_named

Per = Literal["tensor", "channel"]
MOST_BITS = 12  # 4,096 values, as many as a codebook of a model file holds


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """Which weights are clustered, into how many values. Parameters with two or more dimensions are meant.

    Attributes:
        bits: of the weights that ``layers`` does not name: at most 2^bits values; None leaves them alone.
        layers: ``{pattern: bits}`` of tensors or modules by name; where several match, the last.
        keep: patterns of what stays as it is.
        only: patterns of what may be clustered at all; all when None.
        per: whether a codebook is for a tensor, or for each channel of its first dimension.
        start: where k-means begins.
    """

    bits: int | None = None
    layers: Mapping[str, int] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    per: Per = "tensor"
    start: Start = "linear"

    def by_tensor(self, model: nn.Module) -> dict[str, int]:
        """Return ``{tensor: bits}``.

        Raises:
            UnknownNameError: a pattern matches no weight.
            ModelError: nothing would be clustered, or a number of bits is out of range.
        """
        left, named = weights_named(model, self.layers, keep=self.keep, only=self.only)
        wanted = {name: named.get(name, self.bits) for name in left}
        found = {name: bits for name, bits in wanted.items() if bits is not None}
        if not found:
            raise ModelError(f"nothing of this {type(model).__name__} is left to be clustered: give bits or layers")
        if any(not 0 <= bits <= MOST_BITS for bits in found.values()):
            raise ModelError(f"clusters have 0 to {MOST_BITS} bits: 2^bits values")
        return found


def choose_sharing(model: nn.Module, target: Clusters, *, generator: Generator | None = None) -> Sharing:
    """Return which weights are to have one value together; the model is untouched.

    Args:
        model: any module at rest; what its masks hide is the number 0.
        target: what is clustered.
        generator: of kmeans++, on the CPU.

    Raises:
        UnknownNameError, ModelError: as ``Clusters.by_tensor``.
    """
    tensors, masks = named_tensors(model), masks_of(model).kept
    seed = 0 if generator is None else int(torch.randint(2**31, (), generator=generator))
    draws = np.random.default_rng(seed)
    found = {}
    for name, bits in target.by_tensor(model).items():
        weight = tensors[name].detach().cpu()
        kept = masks.get(name)
        kept = torch.ones(weight.shape, dtype=torch.bool) if kept is None else kept.cpu()
        parts = list(zip(weight, kept, strict=True)) if target.per == "channel" else [(weight, kept)]
        symbols = [_symbols(*part, 1 << bits, target.start, draws) for part in parts]
        found[name] = _apart(symbols) if target.per == "channel" else symbols[0]
    return Sharing(found)


def cluster(
    model: nn.Module,
    bits: int | None = None,
    *,
    layers: Mapping[str, int] | None = None,
    keep: tuple[str, ...] = (),
    per: Per = "tensor",
    start: Start = "linear",
) -> nn.Module:
    """Return a copy of a model whose weights are few values, and which carries which weights share one.

    >>> small = cluster(nn.Linear(10, 10), 2)
    >>> len(small.weight.unique())
    4

    Args:
        model: any module; untouched.
        bits: at most 2^bits values a tensor; masked weights are 0 beside them.
        layers: ``{pattern: bits}`` of single layers.
        keep: patterns of what stays as it is; biases and norms' scales always do.
        per: a codebook for a tensor, or for each channel of its first dimension.
        start: where k-means begins.

    Raises:
        ModelError: bits out of range, or nothing is clustered.
        UnknownNameError: a pattern matches no weight.
    """
    target = Clusters(bits=bits, layers=layers or {}, keep=tuple(keep), per=per, start=start)
    return share_(copy.deepcopy(model), choose_sharing(model, target))


def compression_rate(weights: int, clusters: int, bits: int = 32) -> float:
    """Return r: how many times fewer bits weights take as symbols of one length, with their codebook.

    >>> round(compression_rate(16, 4), 1)
    3.2
    """
    return weights * bits / (weights * math.log2(clusters) + clusters * bits)


def _symbols(weight: Tensor, kept: Tensor, clusters: int, start: Start, draws: np.random.Generator) -> Tensor:
    """Return the symbols of a tensor: 1, 2, ... by ascending value, and 0 where nothing is kept."""
    found = torch.zeros(weight.shape, dtype=torch.int32)
    numbers = weight[kept].double().numpy()
    found[kept] = torch.from_numpy(lloyd(numbers, clusters, start=start, generator=draws).symbols) + (ZERO + 1)
    return found


def _apart(channels: list[Tensor]) -> Tensor:
    """Return the symbols of channels with those of each behind those of the one before."""
    most = max(int(one.max()) for one in channels)
    return torch.stack([one.where(one == ZERO, one + place * most) for place, one in enumerate(channels)])
