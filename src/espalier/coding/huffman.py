"""Canonical Huffman codes: the baseline that the literature on compressed weights measures against.

    two rarest symbols join until one tree is left; depth = bits of a symbol, which are all that the file holds
    canonical: codes of one length are consecutive, shorter ones come first

A symbol takes a bit at least, so that 90 % zeros cost 1.2 bits a weight where their entropy is 0.58. Every run of 4,096
symbols says where it begins, so that a reader can walk many at a time.

*Source*: Huffman, Proc. IRE 40(9), 1952; for weights Han et al. (Deep Compression), arXiv:1510.00149, section 4.
*Differs*: counts are scaled to a sum of about 2^20 first, which bounds a code at 29 bits.
"""

from __future__ import annotations

import heapq

import numpy as np

from .bits import Malformed, Reader, block, pack_codes, pack_fixed, unpack_fixed

_RUN = 4096
_LONGEST = 31  # bits of a code, so that five bits hold a length
_SCALE = 1 << 20


def write_huffman(symbols: np.ndarray, histogram: np.ndarray) -> bytes:
    """Return int32 symbols in canonical Huffman codes, with the code's lengths before them."""
    lengths = code_lengths(histogram)
    each = lengths[symbols]
    runs = np.add.reduceat(each, np.arange(0, len(each), _RUN))
    body = pack_codes(canonical(lengths)[symbols], each)
    return pack_fixed(lengths, 5) + runs.astype("<u4").tobytes() + block(body)


def read_huffman(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """Return what `write_huffman` was given."""
    lengths = unpack_fixed(reader.take((5 * alphabet + 7) // 8), alphabet, 5).astype(np.int64)
    runs = np.frombuffer(reader.take(4 * -(-count // _RUN)), "<u4").astype(np.int64)
    body = np.frombuffer(reader.block(), np.uint8)
    if int(runs.sum()) + 7 >> 3 != len(body):
        raise Malformed("Huffman codes are not as long as their file says")
    _check_prefix_free(lengths)
    padded = np.concatenate([body, np.zeros(8, np.uint8)])
    order = np.lexsort((np.arange(alphabet), lengths))
    order = order[lengths[order] > 0]
    firsts = canonical(lengths)[order] << (32 - lengths[order])  # left-aligned: sorted, as canonical codes are
    return _walk(padded, np.cumsum(runs) - runs, np.cumsum(runs), (count, order, firsts, lengths))


def _walk(
    data: np.ndarray, starts: np.ndarray, ends: np.ndarray, code: tuple[int, np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the symbols: in every step the next one of each run."""
    count, order, firsts, lengths = code
    symbols, at = np.empty((len(starts), _RUN), np.int32), starts.copy()
    for step in range(min(_RUN, count)):
        live = len(at) if step < (count - 1) % _RUN + 1 else len(at) - 1
        where = np.minimum(at[:live], ends[:live]) >> 3
        window = np.zeros(live, np.int64)
        for byte in range(5):
            window = window << 8 | data[where + byte]
        window = window >> (8 - (at[:live] & 7)) & 0xFFFFFFFF
        found = order[np.searchsorted(firsts, window, side="right") - 1]
        symbols[:live, step] = found
        at[:live] += lengths[found]
    if not np.array_equal(at, ends):
        raise Malformed("Huffman codes do not end where their file says")
    return symbols.reshape(-1)[:count]


def code_lengths(histogram: np.ndarray) -> np.ndarray:
    """Return how many bits each symbol takes, 0 where it does not occur; two symbols or more occur."""
    total = int(histogram.sum())
    counts = np.maximum(histogram * _SCALE // total if total > _SCALE else histogram, histogram > 0)
    parents: dict[int, int] = {}
    nodes = len(counts)
    tree = [(int(counts[symbol]), int(symbol)) for symbol in np.flatnonzero(counts)]
    heapq.heapify(tree)
    while len(tree) > 1:
        (first, a), (second, b) = heapq.heappop(tree), heapq.heappop(tree)
        parents[a] = parents[b] = nodes
        heapq.heappush(tree, (first + second, nodes))
        nodes += 1
    depth = {nodes - 1: 0}
    for node in sorted(parents, reverse=True):
        depth[node] = depth[parents[node]] + 1
    return np.array([depth.get(symbol, 0) for symbol in range(len(counts))], np.int64)


def canonical(lengths: np.ndarray) -> np.ndarray:
    """Return the canonical code of each length; 0 where a symbol does not occur."""
    codes, code, before = np.zeros(len(lengths), np.int64), 0, 0
    for symbol in np.lexsort((np.arange(len(lengths)), lengths)):
        length = int(lengths[symbol])
        if length:
            code = code << (length - before)
            codes[symbol], before = code, length
            code += 1
    return codes


def _check_prefix_free(lengths: np.ndarray) -> None:
    """Check Kraft's equality: every window of bits begins with exactly one code."""
    if sum(1 << (_LONGEST - int(length)) for length in lengths if length) != 1 << _LONGEST:
        raise Malformed("the lengths of Huffman's codes are those of no code")
