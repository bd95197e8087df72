"""GradNorm: weights of several losses, moved so that all train at a like rate.

    G_i = | grad_W (w_i L_i) |,   r_i = (L_i / L_i(0)) / mean over j of (L_j / L_j(0))
    w  <-  w - lr * d/dw  sum_i | G_i - mean(G) r_i ^ a |        (the target is a constant),   then  sum w = how many

Source: Chen et al., GradNorm, ICML 2018, arXiv:1711.02257, section 3. Recalled, not re-checked against the text.
Differs: (1) the weights move by plain gradient steps, relative to their gradients' mean size, and stay above a floor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LEAST = 0.05  # of a weight: a loss whose weight is nothing cannot come back


def balanced(
    weights: Sequence[float], norms: Sequence[float], progress: Sequence[float], *, power: float, lr: float
) -> list[float]:
    """Return the weights after a step.

    Args:
        weights: w_i, of losses i.
        norms: |grad_W L_i|, of the losses without their weights.
        progress: L_i / L_i(0).
        power: a; 0 makes all gradients equally long, more favours what lags behind.
        lr: step size.
    """
    w, bare, rate = (torch.tensor(one, dtype=torch.float64) for one in (weights, norms, progress))
    own = w * bare
    target = own.mean() * (rate / rate.mean().clamp(min=1e-12)) ** power
    gradient = torch.sign(own - target) * bare / bare.mean().clamp(min=1e-12)
    moved = (w - lr * gradient).clamp(min=_LEAST)
    return (moved * len(w) / moved.sum()).tolist()


def gradient_norm(loss: Tensor, weights: Sequence[Tensor]) -> float:
    """Return the length of a loss's gradient by shared weights; the graph stays for the backward pass to come."""
    found = torch.autograd.grad(loss, list(weights), retain_graph=True, allow_unused=True)
    squares = [float(one.double().square().sum()) for one in found if one is not None]
    return sum(squares) ** 0.5
