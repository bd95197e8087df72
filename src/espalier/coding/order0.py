"""Symbols by how often each occurs, wherever it stands: a table in the file, or counts that both sides keep.

    static     the table of all counts, then the symbols
    adaptive   no table: blocks of 32, 32, 64, 128, ... symbols, each with the counts of those before it,
               1 + w x (times seen), where the file says w

A table is dear for few symbols, and learning costs about half a logarithm a symbol of the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .ans import Popper, Writer, model
from .bits import Malformed, Reader, varint
from .tables import ideal_bits, read_table, write_table

_FIRST = 32  # symbols of the first adaptive block
_LONGEST = 1 << 16
_WEIGHTS = (2, 16)
_MOST_WEIGHT = 1 << 10  # keeps counts of 2^28 symbols below 2^38


def write_static(symbols: np.ndarray, histogram: np.ndarray) -> bytes:
    """Return int32 symbols with their table before them."""
    table, counts = write_table(histogram)
    writer = Writer()
    writer.push(symbols, model(counts))
    return table + writer.bytes()


def read_static(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """Return what `write_static` was given."""
    known = model(read_table(reader, alphabet))
    popper = Popper(reader)
    symbols = popper.pop(count, known)
    popper.close()
    return symbols


def write_adaptive(symbols: np.ndarray, alphabet: int) -> bytes:
    """Return int32 symbols without a table."""
    spans = list(blocks(len(symbols)))
    seen = [np.bincount(symbols[start:stop], minlength=alphabet) for start, stop in spans]
    before = np.cumsum([np.zeros(alphabet, np.int64), *seen[:-1]], axis=0)
    sizes = [sum(map(ideal_bits, 1 + weight * before, seen)) for weight in _WEIGHTS]
    weight = _WEIGHTS[int(np.argmin(sizes))]
    writer = Writer()
    for (start, stop), counts in zip(reversed(spans), before[::-1], strict=True):
        writer.push(symbols[start:stop], model(1 + weight * counts))
    return varint(weight) + writer.bytes()


def read_adaptive(reader: Reader, count: int, alphabet: int) -> np.ndarray:
    """Return what `write_adaptive` was given."""
    weight = reader.varint(_MOST_WEIGHT)
    popper = Popper(reader)
    symbols, counts = np.empty(count, np.int32), np.zeros(alphabet, np.int64)
    for start, stop in blocks(count):
        symbols[start:stop] = popper.pop(stop - start, model(1 + weight * counts))
        counts += np.bincount(symbols[start:stop], minlength=alphabet)
    popper.close()
    if weight == 0:
        raise Malformed("counts that both sides keep weigh nothing")
    return symbols


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """Yield where the adaptive blocks of ``count`` symbols begin and end.

    >>> list(blocks(200))
    [(0, 32), (32, 64), (64, 128), (128, 200)]
    """
    start = 0
    while start < count:
        stop = min(count, start + min(max(start, _FIRST), _LONGEST))
        yield start, stop
        start = stop
