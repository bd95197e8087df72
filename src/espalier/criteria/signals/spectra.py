"""Spectra: how evenly a matrix's energy is spread, and how that changes when a unit goes.

q_j = s_j^2 / sum of s^2  (singular values s),    entropy = - ( sum of q_j log q_j ) / log(number of s)    in [0, 1]
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MOST_EXACT = 128  # rows: an eigenproblem each, a tenth of a second in all
_HALVINGS = 16  # of the interval between two eigenvalues
_BLOCK_ELEMENTS = 1 << 17  # held at once: they stay in the processor's cache


def entropy(squares: Tensor, length: int) -> Tensor:
    """Return the entropy of squared singular values, (..., values), of which ``length`` could differ from zero.

    0: one dominant direction, or none at all; 1: all alike.
    """
    squares = squares.clamp_min(0)
    whole = squares.sum(-1, keepdim=True)
    q = squares / torch.where(whole > 0, whole, 1.0)
    return -torch.special.xlogy(q, q).sum(-1) / math.log(length) if length > 1 else torch.zeros_like(q.sum(-1))


def contributions(gram: Tensor, width: int) -> Tensor:
    """Return, for each row of a matrix A, entropy(A) - entropy(A without it), from gram = A A^T, float64.

    Of more than 128 rows the spectrum without a row is found to 1/65536 of the gaps between eigenvalues, in time
    rows^3 instead of rows^4.

    Args:
        gram: (rows, rows).
        width: columns of A.
    """
    rows = len(gram)
    if rows < 2 or not bool(gram.isfinite().all()):  # what is not finite is found out later
        return 0 * gram.sum(1)
    values, vectors = torch.linalg.eigh(gram)
    whole = entropy(values, min(rows, width))
    if rows > _MOST_EXACT:
        step = max(1, _BLOCK_ELEMENTS // (rows * rows))
        without = torch.cat([_interlaced(values, own) for own in vectors.square().split(step)])
    else:
        places = torch.arange(rows, device=gram.device)
        rest = torch.stack([places[places != row] for row in range(rows)])  # (rows, rows - 1)
        without = torch.cat([torch.linalg.eigvalsh(gram[own[:, :, None], own[:, None, :]]) for own in rest.split(32)])
    return whole - entropy(without, min(rows - 1, width))


def _interlaced(values: Tensor, weights: Tensor) -> Tensor:
    """Return the eigenvalues of a symmetric matrix without one of its rows and columns, (rows, values - 1).

    They are the roots, one between each two neighbours, of  sum over j of weight_j / (value_j - root),  which rises.

    Args:
        values: eigenvalues, rising.
        weights: squared entries of the eigenvectors at each row to leave out, (rows, values).
    """
    low, high = (side.expand(len(weights), -1).clone() for side in (values[:-1], values[1:]))
    tiny = torch.finfo(values.dtype).tiny
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        gaps = (values - middle[:, :, None]).add_(tiny).reciprocal_()  # a gap of nothing stays positive
        right = torch.einsum("rj,rij->ri", weights, gaps) < 0  # the root lies to the right of the middle
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return (low + high) / 2
