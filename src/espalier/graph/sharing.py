"""Sharing: weights that have one value together, whatever is trained: the clusters of a model, by tensor name.

    sharing ──share_──▶ model whose clusters' weights are equal, and which carries the sharing
                          │ deepcopy, training in the loop: a cluster moves as one number
                         cut ──▶ smaller model, with the clusters of the weights that it kept

Symbol 0 stands for the number 0 and stays 0: what a mask hides is there. Every other symbol is one number of its
tensor, as many as there are: a codebook a channel is symbols that no other channel has. A tied weight has one entry,
under its first name. The model stays what it is, with whole tensors of floats; what codes it finds few values in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..core import SharingError, Slice, Surgery, UnknownNameError
from .kinds import check_model
from .recording.tensors import aliases, named_tensors

ZERO = 0  # the symbol of the number 0


@dataclass(frozen=True, eq=False)
class Sharing:
    """Which weights have one value together, as data; nobody changes it.

    Attributes:
        symbols: ``{tensor: int32 of its shape}``; equal symbols of a tensor are equal weights, 0 is the number 0.

    Raises:
        SharingError: symbols are no integers from 0 on.
    """

    symbols: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what names no cluster."""
        for name, symbols in self.symbols.items():
            if not isinstance(symbols, Tensor) or symbols.dtype is not torch.int32:
                kind = symbols.dtype if isinstance(symbols, Tensor) else type(symbols).__name__
                raise SharingError(f"the symbols of {name!r} are {kind}: give int32, one symbol a weight")
            if symbols.numel() and int(symbols.min()) < ZERO:
                raise SharingError(f"the symbols of {name!r} go down to {int(symbols.min())}: they begin at 0")

    def __bool__(self) -> bool:
        """Whether anything is shared."""
        return bool(self.symbols)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: copies of a model share what nobody changes."""
        return self

    def __or__(self, other: Sharing) -> Sharing:
        """Return this sharing with the tensors of another in place of its own."""
        return Sharing({**self.symbols, **other.symbols})

    def sliced(self, slices: Iterable[Slice]) -> Sharing:
        """Return the sharing of what is left after a cut."""
        kept = dict(self.symbols)
        for one in slices:
            if one.tensor in kept:
                index = torch.tensor(one.keep, dtype=torch.long, device=kept[one.tensor].device)
                kept[one.tensor] = kept[one.tensor].index_select(one.dim, index)
        return Sharing(kept)

    def without(self, hidden: Mapping[str, Tensor]) -> Sharing:
        """Return the sharing in which hidden weights are the number 0; itself where they are already."""
        found = {
            name: self.symbols[name].masked_fill(gone.to(self.symbols[name].device), ZERO)
            for name, gone in hidden.items()
            if name in self.symbols and bool((gone.to(self.symbols[name].device) & (self.symbols[name] != ZERO)).any())
        }
        return self | Sharing(found) if found else self

    def clusters(self, name: str) -> int:
        """Return how many numbers but 0 a tensor has."""
        used = self.symbols[name].unique()
        return int((used != ZERO).sum())


_NONE = Sharing()


def sharing_of(model: nn.Module) -> Sharing:
    """Return the sharing that a model carries; the same object until another is put on it."""
    return getattr(model, "espalier_sharing", None) or _NONE  # type: ignore[return-value]


@torch.no_grad()
def share_(model: nn.Module, sharing: Sharing) -> nn.Module:
    """Give each cluster the mean of its weights, in place, and let the model carry the sharing.

    Tensors that the model shares already and ``sharing`` does not name stay as they are. ``unshare_`` ends it.

    Args:
        model: any module at rest (not behind a wrapper, not in shards).
        sharing: by parameter; a tied one under any of its names.

    Raises:
        KindError: the model is none.
        SharingError: it does not fit; the message names all mistakes, and the model is untouched.
    """
    check_model("share_", model)
    new = fitted(sharing, model)
    tensors = named_tensors(model)
    for name, symbols in new.symbols.items():
        tensors[name].copy_(shared(tensors[name], symbols))
    model.espalier_sharing = sharing_of(model) | new  # type: ignore[assignment]
    return model


def unshare_(model: nn.Module) -> nn.Module:
    """Let a model's weights be as many as they are again, in place; they keep their values."""
    if sharing_of(model):
        del model.espalier_sharing
    return model


def shared(values: Tensor, symbols: Tensor) -> Tensor:
    """Return values with each cluster's mean in its place, computed in float64; symbol 0 gives 0.

    >>> shared(torch.tensor([1.0, 3.0, 5.0, 0.5]), torch.tensor([1, 1, 2, 0], dtype=torch.int32))
    tensor([2., 2., 5., 0.])
    """
    where = symbols.to(values.device).flatten().long()
    sums = torch.bincount(where, weights=values.detach().flatten().double())
    means = sums / torch.bincount(where).clamp(min=1)
    if len(means):
        means[ZERO] = 0.0
    return means[where].view(values.shape).to(values.dtype)


def sharing_in(model: nn.Module, *, most: int = 256) -> Sharing:
    """Return the sharing of a model from a file: equal weights are a cluster, zeros are the number 0.

    Args:
        model: whose parameters with few distinct values are meant.
        most: distinct values but 0 that a tensor has at most.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in named_tensors(model).items():
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and tensor.dim() > 1:
            values, places = tensor.detach().flatten().unique(return_inverse=True)
            rank = (values != 0).long().cumsum(0).masked_fill(values == 0, ZERO)
            if len(values) and int(rank.max()) <= min(most, tensor.numel() // 2):
                found[name] = rank[places].to(torch.int32).view(tensor.shape)
    return Sharing(found)


def carry(model: nn.Module, result: nn.Module, surgery: Surgery) -> None:
    """Give what a surgery made of a model the model's sharing, sliced as its tensors were."""
    if sharing_of(model):
        result.espalier_sharing = sharing_of(model).sliced(surgery.slices.values())  # type: ignore[assignment]


def fitted(sharing: Sharing, model: nn.Module) -> Sharing:
    """Return a sharing under the first names of a model's parameters.

    Raises:
        SharingError: it does not fit this model.
    """
    wrong = list(_misfits(sharing, model))
    if wrong:
        raise SharingError(f"this sharing does not fit this {type(model).__name__}: {'; '.join(wrong)}")
    first = aliases(model)
    return Sharing({first.get(name, name): symbols for name, symbols in sharing.symbols.items()})


def _misfits(sharing: Sharing, model: nn.Module) -> Iterator[str]:
    """Yield every way in which a sharing does not fit a model."""
    tensors, first = named_tensors(model), aliases(model)
    seen: dict[str, str] = {}
    for name, symbols in sharing.symbols.items():
        own = first.get(name, name)
        tensor = tensors.get(own)
        if tensor is None:
            yield str(UnknownNameError("tensor", name, (n for n, t in tensors.items() if isinstance(t, nn.Parameter))))
        elif not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
            yield f"{name!r} is no parameter of floating-point numbers"
        elif symbols.shape != tensor.shape:
            yield f"{name!r} has shape {tuple(tensor.shape)}, its symbols {tuple(symbols.shape)}"
        elif own in seen and not torch.equal(symbols, sharing.symbols[seen[own]]):
            yield f"{name!r} and {seen[own]!r} are one tied tensor, and their symbols differ"
        seen.setdefault(own, name)
