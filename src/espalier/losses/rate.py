"""The rate of weights, as a term of a loss: how many bits an entropy coder would need for their symbols.

    q_is = exp(-(w_i - c_s)^2 / 2 t^2) / sum over r of exp(-(w_i - c_r)^2 / 2 t^2)       soft assignment to the values c
    p_s  = (n_s + sum over i of q_is) / (N + sum of n)                                  n: fixed weights of symbol s
    rate = -sum over s of p_s log2 p_s                                                  bits a weight

    d rate / d w_i = -sum over s of (dq_is / dw_i) log2 p_s / (N + sum of n)

So a weight moves towards the symbol that is more frequent for its distance, and symbols that few weights have die out.
As t goes to 0 it is the entropy of the nearest values, which ``coding`` comes within 0.1 % of.

*Source*: Agustsson et al., Soft-to-hard vector quantization, NeurIPS 2017, arXiv:1704.00648, sections 3.2 and 3.3.
*Differs*: (1) p is of the soft assignments themselves, where the paper multiplies by the last histogram's log p; the
gradient is the same once the histogram is up to date; (2) weights that no training moves count too: pruned ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core import ModelError

_LN2 = math.log(2)
_MOST = 1 << 24  # soft assignments that are held at once


def rate(weights: Tensor, values: Tensor, softness: float, fixed: Tensor | None = None) -> Tensor:
    """Return the bits a weight, a scalar that gradients flow through.

    Args:
        weights: (n,), of floats.
        values: (k,), ascending: what symbols stand for; a codebook, or a grid's step times its integers.
        softness: t in mean distances between neighbouring values; small is near the true entropy, and its gradient
            then only reaches weights that are between two values.
        fixed: (k,), how many weights each symbol has beside ``weights``.

    Raises:
        ModelError: ``softness`` is not above 0.
    """
    if not softness > 0:
        raise ModelError(f"softness is above 0, not {softness}")
    total = weights.numel() + (0 if fixed is None else float(fixed.sum()))
    if len(values) < 2 or not total:
        return weights.new_zeros(())
    unit = softness * float(values.diff().abs().mean())
    size = max(1, _MOST // len(values))
    counts = torch.stack([_soft_counts(part, values, unit) for part in weights.split(size)]).sum(0)
    shares = (counts if fixed is None else counts + fixed) / total
    return -torch.special.xlogy(shares, shares.clamp(min=torch.finfo(shares.dtype).tiny)).sum() / _LN2


def _soft_counts(weights: Tensor, values: Tensor, unit: float) -> Tensor:
    distances = (weights[:, None] - values) / unit
    return torch.softmax(-distances.square() / 2, dim=1).sum(0)
