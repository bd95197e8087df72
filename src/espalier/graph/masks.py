"""Masks: weights that are zero and stay zero, one at a time, by tensor name.

    masks ──mask_──▶ model whose masked weights are exactly 0.0, and which carries the masks
                       │ deepcopy, training in the loop
                      cut ──▶ smaller model, with the masks of the weights that it kept

Nothing becomes smaller or faster by it: tensors keep their shapes, and a file holds a zero as it holds any number. What
codes zeros in fewer bits reads them from the weights themselves. A tied weight has one mask, under its first name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..core import MaskError, Slice, Surgery, UnknownNameError
from ..core.run import Density
from .kinds import check_model
from .recording.tensors import aliases, named_tensors

_BITS = 8  # weights that a byte of a bitmap speaks of


@dataclass(frozen=True, eq=False)
class Masks:
    """Which weights are left, as data; nobody changes it.

    Attributes:
        kept: ``{tensor: booleans of its shape, True where the weight is left}``.

    Raises:
        MaskError: a mask is no tensor of booleans.
    """

    kept: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse numbers: 0.5 of a weight is no mask."""
        for name, mask in self.kept.items():
            if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
                kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise MaskError(f"the mask of {name!r} is {kind}: give booleans, True where the weight is left")

    def __bool__(self) -> bool:
        """Whether there is any mask."""
        return bool(self.kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: copies of a model share what nobody changes."""
        return self

    def __and__(self, other: Masks) -> Masks:
        """Return the masks that leave what both leave."""
        both = {name: mask & other.kept[name] for name, mask in self.kept.items() if name in other.kept}
        return Masks({**self.kept, **other.kept, **both})

    def __invert__(self) -> dict[str, Tensor]:
        """Return ``{tensor: True where the weight is zero}``."""
        return {name: ~mask for name, mask in self.kept.items()}

    @property
    def density(self) -> float:
        """Share of the weights of masked tensors that is left; 1 without masks."""
        total = sum(mask.numel() for mask in self.kept.values())
        return sum(int(mask.sum()) for mask in self.kept.values()) / total if total else 1.0

    def sliced(self, slices: Iterable[Slice]) -> Masks:
        """Return the masks of what is left after a cut."""
        kept = dict(self.kept)
        for one in slices:
            if one.tensor in kept:
                index = torch.tensor(one.keep, dtype=torch.long, device=kept[one.tensor].device)
                kept[one.tensor] = kept[one.tensor].index_select(one.dim, index)
        return Masks(kept)


_NONE = Masks()


def masks_of(model: nn.Module) -> Masks:
    """Return the masks that a model carries; the same object until others are put on it."""
    return getattr(model, "espalier_masks", None) or _NONE  # type: ignore[return-value]


@torch.no_grad()
def mask_(model: nn.Module, masks: Masks) -> nn.Module:
    """Set masked weights to zero, in place, and let the model carry the masks; those that it carries already stay.

    Masks only become tighter: a weight that one of them hides is hidden. ``unmask_`` takes them off.

    Args:
        model: any module at rest (not behind a wrapper, not in shards).
        masks: by parameter; a tied one under any of its names.

    Raises:
        KindError: the model is none.
        MaskError: the masks do not fit; the message names all mistakes, and the model is untouched.
    """
    check_model("mask_", model)
    new = masks_of(model) & fitted(masks, model)
    tensors = named_tensors(model)
    for name, hidden in (~new).items():
        tensors[name].masked_fill_(hidden.to(tensors[name].device), 0)
    model.espalier_masks = new  # type: ignore[assignment]
    return model


def unmask_(model: nn.Module) -> nn.Module:
    """Take a model's masks off, in place; its weights stay as they are, zeros among them."""
    if masks_of(model):
        del model.espalier_masks
    return model


def zeros_of(model: nn.Module) -> Masks:
    """Return the masks that leave every weight but those that are exactly zero: of a sparse model from a file.

    Only parameters with two or more dimensions that hold a zero are masked.
    """
    weights = {name: tensor for name, tensor in named_tensors(model).items() if is_weight(tensor)}
    return Masks({name: tensor != 0 for name, tensor in weights.items() if not bool(tensor.all())})


def is_weight(tensor: Tensor) -> bool:
    """Whether a tensor is a parameter that masks are for by default: of floats, with two or more dimensions."""
    return isinstance(tensor, nn.Parameter) and tensor.is_floating_point() and tensor.dim() > 1


def carry(model: nn.Module, result: nn.Module, surgery: Surgery) -> None:
    """Give what a surgery made of a model the model's masks, sliced as its tensors were."""
    if masks_of(model):
        result.espalier_masks = masks_of(model).sliced(surgery.slices.values())  # type: ignore[assignment]


def densities(model: nn.Module) -> tuple[Density, ...]:
    """Return how many weights each masked tensor of a model keeps, and bytes, in the model's order."""
    kept = masks_of(model).kept
    return tuple(
        Density(
            name=name,
            weights=tensor.numel(),
            kept=(left := int(kept[name].sum())),
            dense_bytes=tensor.numel() * tensor.element_size(),
            packed_bytes=-(-tensor.numel() // _BITS) + left * tensor.element_size(),
        )
        for name, tensor in named_tensors(model).items()
        if name in kept
    )


def fitted(masks: Masks, model: nn.Module) -> Masks:
    """Return masks under the first names of a model's parameters.

    Raises:
        MaskError: they do not fit this model.
    """
    wrong = list(_misfits(masks, model))
    if wrong:
        raise MaskError(f"these masks do not fit this {type(model).__name__}: {'; '.join(wrong)}")
    first = aliases(model)
    return Masks({first.get(name, name): mask for name, mask in masks.kept.items()})


def _misfits(masks: Masks, model: nn.Module) -> Iterator[str]:
    """Yield every way in which masks do not fit a model."""
    tensors, first = named_tensors(model), aliases(model)
    seen: dict[str, str] = {}
    for name, mask in masks.kept.items():
        own = first.get(name, name)
        tensor = tensors.get(own)
        if tensor is None:
            yield str(UnknownNameError("tensor", name, (n for n, t in tensors.items() if isinstance(t, nn.Parameter))))
        elif not isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
            yield f"{name!r} is no parameter of floating-point numbers"
        elif mask.shape != tensor.shape:
            yield f"{name!r} has shape {tuple(tensor.shape)}, its mask {tuple(mask.shape)}"
        elif own in seen and not torch.equal(mask, masks.kept[seen[own]]):
            yield f"{name!r} and {seen[own]!r} are one tied tensor, and their masks differ"
        seen.setdefault(own, name)
