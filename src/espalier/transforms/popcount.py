"""Bits that differ between rows of bits: what a dot product of signs comes to.

    sum of x_i w_i = n - 2 popcount(x XOR w)           x, w in {-1, +1} as n bits

The kernels are Faiss's (Meta, MIT licence; ``pip install espalier[packed]``), which count words with the processor's
own vector instructions. Without it NumPy counts, a tenth as fast: about as fast as floating point is.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Bits = NDArray[np.uint8]  # (rows, bytes): a whole number of words of 64 bits
WORD = 8  # bytes


def differing(rows: Bits, others: Bits) -> NDArray[np.int32]:
    """Return how many bits differ between each of ``rows`` and each of ``others``: (rows, others)."""
    return _kernel()(np.ascontiguousarray(rows), np.ascontiguousarray(others))


def kernel() -> str:
    """Return what counts: ``"faiss"`` or ``"numpy"``."""
    return "numpy" if importlib.util.find_spec("faiss") is None else "faiss"


@functools.cache
def _kernel() -> Callable[[Bits, Bits], NDArray[np.int32]]:
    return by_numpy if kernel() == "numpy" else by_faiss


def by_numpy(rows: Bits, others: Bits) -> NDArray[np.int32]:
    """Count with NumPy, a word after the other."""
    words, columns = rows.view(np.uint64), others.view(np.uint64).T.copy()
    total = np.zeros((len(rows), len(others)), np.int32)
    for place, column in enumerate(columns):
        total += np.bitwise_count(words[:, place, None] ^ column)
    return total


def by_faiss(rows: Bits, others: Bits) -> NDArray[np.int32]:
    """Count with Faiss, on as many threads as PyTorch uses."""
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    total = np.empty((len(rows), len(others)), np.int32)
    pointers = [faiss.swig_ptr(one) for one in (rows, others, total)]
    faiss.hammings(*pointers[:2], len(rows), len(others), rows.shape[1], pointers[2])
    return total


def in_words(bits: Bits) -> Bits:
    """Return rows of bytes with zeros up to a whole number of words."""
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % WORD)))
