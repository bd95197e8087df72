"""Numbers that are no weights, in fewer bits: biases, norms' scales, shifts and statistics.

    x = m 2^e, 1/2 <= |m| < 1        x <- round(m 2^(bits + 1)) 2^(e - bits - 1)     at most 2^-(bits + 1) of |x| away

They stay floats of their own type, whose last bits are zero: an encoded file spends nothing on those.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..graph.recording.tensors import stored_tensors
from ..graph.sharing import sharing_of

FEWEST = 1 << 4  # numbers of a tensor, below which rounding saves no bytes that count


@torch.no_grad()
def round_vectors_(model: nn.Module, bits: int) -> nn.Module:
    """Round what a model stores of floats in tensors of one dimension, in place; ties go to the even neighbour.

    >>> layer = nn.Linear(1, 16)
    >>> _ = nn.init.constant_(layer.bias, 1.3)
    >>> float(round_vectors_(layer, 2).bias.detach()[0])
    1.25

    Args:
        model: any module at rest; tensors with clusters stay as they are.
        bits: of the mantissa that are left behind the first.
    """
    shared = sharing_of(model).symbols
    for name, tensor in stored_tensors(model).items():
        if name not in shared and tensor.is_floating_point() and tensor.dim() == 1 and tensor.numel() >= FEWEST:
            tensor.copy_(rounded(tensor, bits))
    return model


def rounded(values: Tensor, bits: int) -> Tensor:
    """Return floats with so many bits of mantissa behind the first."""
    mantissa, exponent = torch.frexp(values.detach().double())
    return torch.ldexp((mantissa * 2 ** (bits + 1)).round(), exponent - bits - 1).to(values.dtype)
