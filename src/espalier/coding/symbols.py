"""Symbols of a small alphabet in the fewest bytes: every coder that may pay is tried, and the smallest is kept.

constant   one symbol, and nothing else
packed     as many bits a symbol as its alphabet needs: binary and ternary weights in 1 and 2 bits
static, adaptive, context   by asymmetric numeral systems; see `order0` and `context`
huffman    the published baseline, written only when it is asked for
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from . import context, huffman, order0
from .bits import Malformed, Reader, pack_fixed, unpack_fixed, varint
from .tables import LARGEST_ALPHABET, ideal_bits

Coder = Literal["best", "packed", "static", "adaptive", "context", "huffman"]
METHODS = ("constant", "packed", "static", "adaptive", "context", "huffman")
CONSTANT, PACKED, STATIC, ADAPTIVE, CONTEXT, HUFFMAN = range(6)

_PAYS = 0.998  # of the packed size: what entropy coding must save
_SAMPLE = 1 << 16
_MANY = 1 << 18  # symbols a table is cheap for, whose counts need not be learnt


def write_symbols(
    symbols: np.ndarray,
    shape: tuple[int, ...],
    alphabet: int,
    *,
    coder: Coder = "best",
    activity: int = context.DISTANCE,
) -> bytes:
    """Return symbols and how to read them.

    Args:
        symbols: int32 in [0, alphabet), in the order of a tensor of ``shape``.
        shape: of that tensor.
        alphabet: how many symbols there can be; the reader knows it.
        coder: a method's name, or the smallest of all.
        activity: what the context model takes a symbol for; see `context`.
    """
    counts = histogram(symbols, alphabet)
    used = np.flatnonzero(counts)
    if len(used) < 2:
        return bytes([CONSTANT]) + varint(int(used[0]) if len(used) else 0)
    fits = context.fits(len(symbols), shape, alphabet)
    width = _width(alphabet)
    if coder == "packed" or (coder == "context" and not fits):  # what cannot be walked is packed
        return bytes([PACKED]) + pack(symbols, width)
    if coder != "best":
        return _written(METHODS.index(coder), symbols, shape, counts, activity)
    packed = math.ceil(len(symbols) * width / 8)
    if ideal_bits(counts, counts) > _PAYS * 8 * packed:
        return bytes([PACKED]) + pack(symbols, width)
    tried = [STATIC]
    if len(symbols) <= _MANY:
        tried.append(ADAPTIVE)
    best = min((_written(method, symbols, shape, counts, activity) for method in tried), key=len)
    if fits and context.pays(len(symbols), len(best)) and _promises(symbols, shape, alphabet, activity):
        best = min(best, _written(CONTEXT, symbols, shape, counts, activity), key=len)
    return best if len(best) <= packed else bytes([PACKED]) + pack(symbols, width)


def _promises(symbols: np.ndarray, shape: tuple[int, ...], alphabet: int, activity: int) -> bool:
    """Return whether contexts are worth a walk through a large tensor: whether they are for its first filters."""
    if len(symbols) <= _MANY:
        return True
    a_filter = len(symbols) // shape[0]
    some = symbols[: -(-_SAMPLE // a_filter) * a_filter]
    part, counts = (len(some) // a_filter, *shape[1:]), histogram(some, alphabet)
    if np.count_nonzero(counts) < 2 or not context.fits(len(some), part, alphabet):
        return True
    walked = context.write_context(some, part, counts, activity)
    return len(walked) < len(order0.write_static(some, counts))


def _written(method: int, symbols: np.ndarray, shape: tuple[int, ...], counts: np.ndarray, activity: int) -> bytes:
    """Return the symbols as one of the entropy coders writes them."""
    if method == STATIC:
        data = order0.write_static(symbols, counts)
    elif method == ADAPTIVE:
        data = order0.write_adaptive(symbols, len(counts))
    elif method == CONTEXT:
        data = context.write_context(symbols, shape, counts, activity)
    else:
        data = huffman.write_huffman(symbols, counts)
    return bytes([method]) + data


def read_symbols(reader: Reader, count: int, shape: tuple[int, ...], alphabet: int) -> np.ndarray:
    """Return what `write_symbols` was given, as int32.

    Args:
        reader: of the stream.
        count: how many symbols.
        shape: of the tensor.
        alphabet: as it was written.
    """
    method = reader.byte()
    if method == CONSTANT:
        return np.full(count, reader.varint(alphabet - 1), np.int32)
    if count < 2 or alphabet < 2:
        raise Malformed("a symbol that can only be one thing is coded")
    if method == PACKED:
        symbols = unpack(reader.take(math.ceil(count * _width(alphabet) / 8)), count, _width(alphabet))
        if int(symbols.max()) >= alphabet:
            raise Malformed("a packed symbol is none of its alphabet")
        return symbols
    if method == STATIC:
        return order0.read_static(reader, count, alphabet)
    if method == ADAPTIVE:
        return order0.read_adaptive(reader, count, alphabet)
    if method == CONTEXT:
        return context.read_context(reader, shape, alphabet)
    if method == HUFFMAN:
        return huffman.read_huffman(reader, count, alphabet)
    raise Malformed(f"symbols by method {method}, which this Espalier does not know")


def histogram(symbols: np.ndarray, alphabet: int, *, chunk: int = 1 << 22) -> np.ndarray:
    """Return how often each symbol occurs, without copying all symbols to 64 bits at once."""
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, len(symbols), chunk):
        counts += np.bincount(symbols[start : start + chunk], minlength=alphabet)
    return counts


def pack(symbols: np.ndarray, width: int) -> bytes:
    """Return symbols of ``width`` bits each."""
    return symbols.astype(np.uint8).tobytes() if width == 8 else pack_fixed(symbols, width)


def unpack(data: memoryview, count: int, width: int) -> np.ndarray:
    """Return what `pack` was given, as int32."""
    return np.frombuffer(data, np.uint8).astype(np.int32) if width == 8 else unpack_fixed(data, count, width)


def _width(alphabet: int) -> int:
    if alphabet > LARGEST_ALPHABET:
        raise Malformed(f"an alphabet of {alphabet} symbols, of {LARGEST_ALPHABET} at most")
    return max(1, (alphabet - 1).bit_length())
