"""Frequencies as integers: what an entropy coder shares between writer and reader.

    f_i = 1 + floor(c_i (2^24 - n) / sum c),    what rounding left over goes to the first largest c_i

so that the n frequencies sum to 2^24, and none is 0: whatever symbol comes can be written. The tables depend on
integers alone, so they are the same on every machine.
"""

from __future__ import annotations

import numpy as np

from .bits import Malformed, Reader, block, gamma_lengths, pack_gamma, unpack_gamma

PRECISION = 24
LARGEST_ALPHABET = 1 << 16
_TOTAL = 1 << PRECISION
_SCALES = (5, 7, 9, 11, 13, 15, 18)  # bits of the counts that a file may hold; the encoder tries each
_WIDEST = 24


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Return integer frequencies that sum to 2^24, at least 1 each.

    Args:
        counts: how often each symbol is expected, integers below 2^38; not all 0.
    """
    counts = counts.astype(np.int64)
    free = _TOTAL - len(counts)
    shares = counts * free // int(counts.sum())
    shares[int(np.argmax(counts))] += free - int(shares.sum())
    return shares + 1


def ideal_bits(counts: np.ndarray, histogram: np.ndarray) -> float:
    """Return how many bits symbols with ``histogram`` take where ``counts`` were expected; writers choose by it."""
    used = histogram > 0
    return float((histogram[used] * (PRECISION - np.log2(frequencies(counts)[used]))).sum())


def write_table(histogram: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return a histogram in few bytes, and the counts that a reader makes of them.

    Each count is written as round(c 2^p / sum c), at least 1 where the symbol occurs; of all p the one with which table
    and symbols together are smallest.
    """
    best: tuple[float, bytes, np.ndarray] | None = None
    total = int(histogram.sum())
    for scale in _SCALES:
        counts = np.maximum(((histogram << scale) + total // 2) // total, histogram > 0)
        size = int(gamma_lengths(counts + 1).sum()) + ideal_bits(counts, histogram)
        if best is None or size < best[0]:
            best = size, pack_gamma(counts + 1), counts
    assert best is not None
    return block(best[1]), best[2]


def read_table(reader: Reader, alphabet: int) -> np.ndarray:
    """Return the counts that `write_table` wrote."""
    counts = unpack_gamma(reader.block(), alphabet) - 1
    if not counts.any() or int(counts.max()) > 1 << _WIDEST:
        raise Malformed("a table of frequencies is out of range")
    return counts
