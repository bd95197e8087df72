"""A light step: forward and backward in a fraction of the memory, where only that gradients exist matters.

What autograd saves of large float64 tensors is kept in bfloat16 (a quarter of the bytes; the same range as float32), so
a large model's training can be checked where its float64 activations would not fit. Forward values stay exact, unless
the forward pass itself differentiates: a difference that is found here is looked at again without.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

LARGE_ELEMENTS = 2**18


def light_step() -> saved_tensors_hooks:
    """Return a context in which autograd saves large float64 tensors in bfloat16; gradients' values become rough."""
    return saved_tensors_hooks(_pack, _unpack)


def _pack(tensor: Tensor) -> tuple[Tensor, torch.dtype]:
    bytes_of_its_own = tensor.numel() * tensor.element_size()
    is_shared = tensor.is_leaf or tensor.untyped_storage().nbytes() < bytes_of_its_own  # a copy would cost, not save
    is_large = tensor.dtype == torch.float64 and tensor.numel() >= LARGE_ELEMENTS
    kept = tensor.detach()  # an output that were kept itself would keep its own history alive
    return (kept.to(torch.bfloat16) if is_large and not is_shared else kept), tensor.dtype


def _unpack(packed: tuple[Tensor, torch.dtype]) -> Tensor:
    tensor, dtype = packed
    return tensor.to(dtype)
