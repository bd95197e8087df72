"""Numbers as they are, bit by bit, in the fewest bytes: what lossless coding of weights can do.

    raw         the bytes
    planes      the first byte of all numbers, then the second, ...; each plane by its own best coder. Of a float the
                sign goes last, so that the first byte is the exponent (float16: and three bits more)
    codebook    few distinct numbers: these, and which of them each is
    sparse      a mask of the numbers that are not 0 (all bits), and these in one of the forms above

The exponents of trained weights take about 2.6 of 8 bits; mantissas are noise and stay as they are.

*Source*: Hershcovitch et al. (ZipNN), arXiv:2411.05239, for exponents apart from mantissas.
*Differs*: (1) arithmetic coding with contexts for exponents, where ZipNN has Huffman's code; (2) codebooks and masks.
"""

from __future__ import annotations

import math

import numpy as np

from . import context
from .bits import Malformed, Reader, varint
from .mask import read_mask, write_mask
from .symbols import Coder, read_symbols, write_symbols

METHODS = ("raw", "planes", "codebook", "sparse")
RAW, PLANES, CODEBOOK, SPARSE = range(4)

_FEW = 1 << 12  # distinct numbers of a codebook
_SHARED = 16  # numbers to an entry of a codebook, from which planes are not worth a try
_SAMPLE = 1 << 14
_ZEROS = 0.1  # share of zeros from which a mask may pay


def write_words(
    words: np.ndarray, shape: tuple[int, ...], *, is_float: bool, coder: Coder = "best", nested: bool = False
) -> bytes:
    """Return numbers and how to read them.

    Args:
        words: the numbers' bits as unsigned integers of their size, in the order of a tensor of ``shape``.
        shape: of that tensor.
        is_float: the highest bit is a sign and exponent bits follow.
        coder: of the symbols that the numbers are taken apart into.
        nested: these are the numbers of a sparse tensor that are not zero.
    """
    raw = bytes([RAW]) + _little(words).tobytes()
    found, distinct = [raw], _distinct(words)
    if distinct is not None:
        found.append(_write_codebook(words, shape, _by_value(distinct, is_float=is_float), coder))
    if distinct is None or len(words) < _SHARED * len(distinct):
        found.append(_write_planes(words, shape, is_float=is_float, coder=coder))
    kept = words != 0
    if not nested and len(words) and 1 - np.count_nonzero(kept) / len(words) >= _ZEROS:
        rest = words[kept]
        inner = write_words(rest, (len(rest),), is_float=is_float, coder=coder, nested=True)
        found.append(bytes([SPARSE]) + write_mask(kept, shape) + inner)
    return min(found, key=len)


def read_words(reader: Reader, shape: tuple[int, ...], size: int, *, nested: bool = False) -> np.ndarray:
    """Return what `write_words` was given.

    Args:
        reader: of the stream.
        shape: of the tensor.
        size: bytes of a number.
        nested: these are the numbers of a sparse tensor that are not zero.
    """
    count, kind = math.prod(shape), np.dtype(f"u{size}")
    method = reader.byte()
    if method == RAW:
        return np.frombuffer(reader.take(count * size), kind.newbyteorder("<")).astype(kind)
    if method == PLANES:
        return _read_planes(reader, shape, size)
    if method == CODEBOOK:
        entries = reader.varint(_FEW)
        codebook = np.frombuffer(reader.take(entries * size), kind.newbyteorder("<")).astype(kind)
        return codebook[read_symbols(reader, count, shape, entries)]
    if method == SPARSE and not nested:
        places = read_mask(reader, count, shape)
        words = np.zeros(count, kind)
        words[places] = read_words(reader, (len(places),), size, nested=True)
        return words
    raise Malformed(f"numbers by method {method}, which this Espalier does not know")


def _write_planes(words: np.ndarray, shape: tuple[int, ...], *, is_float: bool, coder: Coder) -> bytes:
    """Return the planes, the highest first; only that one is worth contexts, and those are of levels."""
    top = 8 * words.itemsize - 1
    turned = (words << words.dtype.type(1)) | (words >> words.dtype.type(top)) if is_float else words
    parts = [bytes([PLANES, is_float])]
    for place in reversed(range(words.itemsize)):
        plane = ((turned >> words.dtype.type(8 * place)) & words.dtype.type(255)).astype(np.int32)
        whole = shape if place == words.itemsize - 1 else (len(words),)
        parts.append(write_symbols(plane, whole, 256, coder=coder, activity=context.LEVEL))
    return b"".join(parts)


def _read_planes(reader: Reader, shape: tuple[int, ...], size: int) -> np.ndarray:
    turns, kind, count = reader.byte(), np.dtype(f"u{size}").type, math.prod(shape)
    if turns > 1:
        raise Malformed("planes of no known order")
    words = np.zeros(count, kind)
    for place in reversed(range(size)):
        whole = shape if place == size - 1 else (count,)
        words |= read_symbols(reader, count, whole, 256).astype(kind) << kind(8 * place)
    return (words >> kind(1)) | (words << kind(8 * size - 1)) if turns else words


def _write_codebook(words: np.ndarray, shape: tuple[int, ...], codebook: np.ndarray, coder: Coder) -> bytes:
    order = np.argsort(codebook)
    symbols = order[np.searchsorted(codebook[order], words)].astype(np.int32)
    head = bytes([CODEBOOK]) + varint(len(codebook)) + _little(codebook).tobytes()
    return head + write_symbols(symbols, shape, len(codebook), coder=coder)


def _distinct(words: np.ndarray) -> np.ndarray | None:
    """Return the distinct numbers where they are few, else nothing; a sample says so soon for most tensors."""
    most = min(_FEW, len(words) // 2)
    step = max(1, len(words) // _SAMPLE)
    if not len(words) or len(np.unique(words[::step])) > most:
        return None
    found = np.unique(words)
    return found if len(found) <= most else None


def _by_value(words: np.ndarray, *, is_float: bool) -> np.ndarray:
    """Return distinct words, ascending, in the order of the floats that they are."""
    if not is_float:
        return words
    half = np.searchsorted(words, words.dtype.type(1 << (8 * words.itemsize - 1)))
    return np.concatenate([words[half:][::-1], words[:half]])


def _little(words: np.ndarray) -> np.ndarray:
    return words.astype(words.dtype.newbyteorder("<"))
