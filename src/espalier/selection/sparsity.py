"""Which weights become zero: those of the smallest magnitude, layer by layer or among all.

    layer    of every tensor with n weights, the round(s n) smallest |w|
    global   of all tensors together, with n weights, the round(s n) smallest |w|

*Source*: Han et al., Learning both weights and connections for efficient neural networks, NeurIPS 2015,
arXiv:1506.02626. *Differs*: (1) the share is asked for, where the paper's threshold is a multiple of the layer's
standard deviation; (2) among equals the first ones go.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from ..core import ModelError
from ..graph.masks import Masks, mask_, masks_of
from ..graph.recording.tensors import named_tensors
from .weights import weights_named

Scope = Literal["layer", "global"]
Ranking = Literal["magnitude", "random"]
_GONE = -1.0  # the score of a weight that is masked already: below all others


@dataclass(frozen=True, kw_only=True)
class Sparsity:
    """What share of which weights becomes zero. Parameters with two or more dimensions are meant; others stay whole.

    Attributes:
        overall: share of the weights that ``layers`` does not name; None leaves them alone.
        layers: ``{pattern: share}`` of tensors or modules by name, each for itself; where several match, the last.
        scope: whether ``overall`` is the share of every tensor, or of all together.
        keep: patterns of what stays whole.
        only: patterns of what may be masked at all; all when None.
    """

    overall: float | None = None
    layers: Mapping[str, float] = field(default_factory=dict)
    scope: Scope = "layer"
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None

    def mapped(self, change: Callable[[float], float]) -> Sparsity:
        """Return the same with every share changed: a stop on the way there."""
        overall = None if self.overall is None else change(self.overall)
        return replace(self, overall=overall, layers={name: change(share) for name, share in self.layers.items()})


def aimed(model: nn.Module, target: Sparsity) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return ``{tensor: its own share}``, and the tensors that have ``overall`` together.

    Raises:
        UnknownNameError: a pattern matches no weight.
        ModelError: nothing would be masked.
    """
    left, named = weights_named(model, target.layers, keep=target.keep, only=target.only)
    own = {name: named[name] for name in left if name in named}
    rest = tuple(name for name in left if name not in named) if target.overall is not None else ()
    if not own and not rest:
        raise ModelError(f"nothing of this {type(model).__name__} is left to be masked: keep and only leave no weight")
    if target.scope == "layer" and target.overall is not None:
        return {**own, **dict.fromkeys(rest, target.overall)}, ()
    return own, rest


def choose_masks(
    model: nn.Module, target: Sparsity, *, ranking: Ranking = "magnitude", generator: Generator | None = None
) -> Masks:
    """Return masks that hide the lowest weights; what the model's own masks hide goes first and stays hidden.

    Args:
        model: any module at rest; untouched.
        target: shares.
        ranking: by magnitude, or at random, which is a control.
        generator: of the random ranking, on the CPU.

    Raises:
        UnknownNameError, ModelError: as ``aimed``.
    """
    own, rest = aimed(model, target)
    tensors, before = named_tensors(model), masks_of(model)

    def score(name: str) -> Tensor:
        weight = tensors[name].detach()
        wide = torch.promote_types(weight.dtype, torch.float32)
        found = weight.abs().to(wide) if ranking == "magnitude" else torch.rand(weight.shape, generator=generator)
        gone = before.kept.get(name)
        return (found if gone is None else found.masked_fill(~gone.to(found.device), _GONE)).flatten()

    kept = {name: highest(score(name), share).view(tensors[name].shape) for name, share in own.items()}
    if rest and target.overall is not None:
        together = highest(torch.cat([score(name) for name in rest]), target.overall)
        parts = together.split([tensors[name].numel() for name in rest])
        kept |= {name: part.view(tensors[name].shape).clone() for name, part in zip(rest, parts, strict=True)}
    return Masks({name: mask.cpu() for name, mask in kept.items()}) & before


def highest(scores: Tensor, share: float) -> Tensor:
    """Return which of a row of scores stay when the lowest ``share`` of them go; among equals the first ones go."""
    gone = round(share * len(scores))
    if gone <= 0:
        return torch.ones_like(scores, dtype=torch.bool)
    edge = scores.kthvalue(min(gone, len(scores))).values
    kept = scores > edge
    ties = (scores == edge).nonzero().flatten()
    spare = len(scores) - gone - int(kept.sum())
    kept[ties[len(ties) - max(spare, 0) :]] = True
    return kept


def sparsify(
    model: nn.Module,
    sparsity: float | None = None,
    *,
    layers: Mapping[str, float] | None = None,
    scope: Scope = "layer",
    keep: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None,
) -> nn.Module:
    """Return a copy of a model whose smallest weights are zero, and which carries the masks.

    >>> small = sparsify(nn.Linear(10, 10), 0.9)
    >>> int(small.weight.count_nonzero()), int(small.bias.count_nonzero())
    (10, 10)

    Args:
        model: any module; untouched.
        sparsity: share of the weights that become zero, in [0, 1].
        layers: ``{pattern: share}`` of single layers.
        scope: whether ``sparsity`` is that of every tensor, or of all together.
        keep: patterns of what stays whole; biases and norms' scales always do.
        only: patterns of what may become zero at all.

    Raises:
        ModelError: a share out of range, or nothing is masked.
        UnknownNameError: a pattern matches no weight.
    """
    shares = [*(layers or {}).values(), *([] if sparsity is None else [sparsity])]
    if any(not 0.0 <= share <= 1.0 for share in shares):
        raise ModelError(f"a sparsity is a share of the weights, in [0, 1]; got {min(shares):g} to {max(shares):g}")
    target = Sparsity(overall=sparsity, layers=layers or {}, scope=scope, keep=tuple(keep), only=only)
    return mask_(copy.deepcopy(model), choose_masks(model, target))
