"""Symbols by what stands around them: a weight's size is foretold by its kernel, its filter and its input channel.

A weight tensor is read as (filters, channels, kernel positions). It is coded in passes: kernel position by kernel
position, and within one every a-th filter and b-th channel at a time, so that all symbols of a pass have their
neighbours in the passes before it, and are coded together. (a and b are 1, and doubled in turn, a first, while a b <=
min(16, filters x channels div 512) and each fits; rows go before columns.) With activity m of a symbol, R and C the
means of m known so far of its filter and its channel, G the mean of all (in 64ths, two G's added to each for a start),
and m_1 ... m_j the last four kernel positions at its filter and channel,

    score = (2 E + 64 (m_1 + ... + m_j)) div (2 + j),    E = R C / G   or   R + C - G

The activity is a symbol's distance from the most frequent one (quantized weights, masks: the product E, and the
context is the bit length of the score), or its level (exponents, which are logarithms: the sum E, and the context is
the score in whole levels above the most frequent one, plus 32, in 0 to 63). Each context has counts of its own on top
of the table of all symbols that the file holds, which weighs as 64 of them: f + 2^18 x (times seen in this context); a
context that has seen more than 2^14 halves its counts. Integers only, on both sides.

*Source*: the idea of coding a weight by the significance of its neighbours is DeepCABAC's (Wiedemann et al.,
arXiv:1907.11900, section III); contexts of several neighbours' magnitudes are those of lossless image coding (Wu and
Memon, IEEE Trans. Commun. 45(4), 1997).
*Differs*: (1) passes of many symbols, not one symbol after another; (2) no context from the layer before: every
tensor is decoded by itself, and its input channels' means say much of the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from .ans import Model, Popper, Writer, model
from .bits import Malformed, Reader, varint
from .tables import frequencies, read_table, write_table

LEVEL, DISTANCE = 0, 1
LARGEST_ALPHABET = 256
FEWEST = 1024  # symbols; below, the contexts learn nothing

_CONTEXTS = 64
_HALF = _CONTEXTS // 2
_PASS = 512  # symbols that a pass should have
_SPLITS = 16  # passes of one kernel position, at most
_STEP = 1 << 18  # what a symbol that was seen adds to frequencies that sum to 2^24
_OLD = 1 << 14
_NEAR = 4  # kernel positions
_SMALLEST = 128  # filters x channels: a pass of fewer symbols is mostly overhead
_DENSEST = 64  # symbols a byte: more are not worth a reader's time, whoever wrote the file

Take = Callable[[tuple[slice, slice, int], np.ndarray, Model], np.ndarray]


def fits(count: int, shape: tuple[int, ...], alphabet: int) -> bool:
    """Return whether the contexts of a tensor of ``shape`` can be walked in reasonable time."""
    if len(shape) < 2 or count < FEWEST or not 2 <= alphabet <= LARGEST_ALPHABET:
        return False
    return shape[0] * shape[1] >= _SMALLEST


def pays(count: int, size: int) -> bool:
    """Return whether ``size`` bytes are enough for ``count`` symbols to be walked for."""
    return count <= _DENSEST * size


def write_context(symbols: np.ndarray, shape: tuple[int, ...], histogram: np.ndarray, activity: int) -> bytes:
    """Return int32 symbols of a tensor of ``shape``, coded by their contexts.

    Args:
        symbols: in the tensor's own order.
        shape: two dimensions or more, filters first.
        histogram: of the symbols, at most 256 of them.
        activity: ``LEVEL`` or ``DISTANCE``.
    """
    table, counts = write_table(histogram)
    centre = int(np.argmax(histogram))
    whole = symbols.reshape(_folded(shape))
    pushed: list[tuple[np.ndarray, Model]] = []

    def take(place: tuple[slice, slice, int], where: np.ndarray, known: Model) -> np.ndarray:
        taken = whole[place].reshape(-1)[where]
        pushed.append((taken, known))
        return taken

    _walk(_folded(shape), counts, (activity, centre), take)
    writer = Writer()
    for taken, known in reversed(pushed):
        writer.push(taken, known)
    return bytes([activity]) + varint(centre) + table + writer.bytes()


def read_context(reader: Reader, shape: tuple[int, ...], alphabet: int) -> np.ndarray:
    """Return what `write_context` was given."""
    if not fits(math.prod(shape), shape, alphabet) or not pays(math.prod(shape), reader.left):
        raise Malformed("contexts in a tensor that has too little for them")
    activity = reader.byte()
    centre = reader.varint(alphabet - 1)
    if activity not in (LEVEL, DISTANCE):
        raise Malformed(f"contexts of kind {activity}, which this Espalier does not know")
    counts = read_table(reader, alphabet)
    popper = Popper(reader)

    def take(place: tuple[slice, slice, int], where: np.ndarray, known: Model) -> np.ndarray:
        return popper.pop(len(where), known)

    symbols = _walk(_folded(shape), counts, (activity, centre), take)
    popper.close()
    return symbols.reshape(-1)


def _walk(shape: tuple[int, int, int], counts: np.ndarray, kind: tuple[int, int], take: Take) -> np.ndarray:
    """Return all symbols, as ``take`` gives those of each context; writer and reader walk the same way."""
    activity, centre = kind
    known = _Known(shape, activity, centre)
    pooled, own = frequencies(counts), np.zeros((_CONTEXTS, len(counts)), np.int64)
    symbols = np.empty(shape, np.int32)
    for place in _passes(shape):
        contexts = known.contexts(place)
        size = contexts.shape
        contexts = contexts.reshape(-1)
        order, parts = np.argsort(contexts, kind="stable"), np.bincount(contexts, minlength=_CONTEXTS)
        block, start = np.empty(len(contexts), np.int32), 0
        for context in np.flatnonzero(parts):
            where = order[start : start + parts[context]]
            start += parts[context]
            block[where] = take(place, where, model(pooled + _STEP * own[context]))
            own[context] += np.bincount(block[where], minlength=len(counts))
            while own[context].sum() > _OLD:
                own[context] >>= 1
        symbols[place] = block.reshape(size)
        known.learn(place, symbols[place])
    return symbols


class _Known:
    """The activities of the symbols known so far, and the contexts that they make."""

    def __init__(self, shape: tuple[int, int, int], activity: int, centre: int) -> None:
        self._level, self._centre = activity == LEVEL, centre
        self._activity = np.zeros(shape, np.int32)
        self._sums = [np.zeros(size, np.int64) for size in shape[:2]]
        self._counts = [np.zeros(size, np.int64) for size in shape[:2]]

    def contexts(self, place: tuple[slice, slice, int]) -> np.ndarray:
        """Return the context of each symbol of a pass, as uint8."""
        rows, columns, position = place
        mean = 64 * int(self._sums[0].sum()) // max(1, int(self._counts[0].sum()))
        row, column = (
            (64 * sums[part] + 2 * mean) // (counts[part] + 2)
            for sums, counts, part in zip(self._sums, self._counts, (rows, columns), strict=True)
        )
        if self._level:
            expected = np.maximum(row[:, None] + column - mean, 0)
        else:
            expected = row[:, None] * column // max(mean, 1)
        near = self._activity[rows, columns, max(0, position - _NEAR) : position]
        score = (2 * expected + 64 * near.sum(axis=2, dtype=np.int64)) // (2 + near.shape[2])
        if self._level:
            return np.clip((score >> 6) - self._centre + _HALF, 0, _CONTEXTS - 1).astype(np.uint8)
        return np.frexp(score.astype(np.float64))[1].astype(np.uint8)  # the exponent is an integer's bit length

    def learn(self, place: tuple[slice, slice, int], symbols: np.ndarray) -> None:
        """Take note of the symbols of a pass."""
        activity = symbols if self._level else np.abs(symbols - self._centre)
        self._activity[place] = activity
        for dim in (0, 1):
            self._sums[dim][place[dim]] += activity.sum(axis=1 - dim, dtype=np.int64)
            self._counts[dim][place[dim]] += activity.shape[1 - dim]


def _passes(shape: tuple[int, int, int]) -> Iterator[tuple[slice, slice, int]]:
    """Yield what each pass covers: every a-th filter, every b-th channel, one kernel position."""
    filters, channels, positions = shape
    splits = min(_SPLITS, filters * channels // _PASS)
    a = b = 1
    while 2 * a * b <= splits:
        if (a <= b and 2 * a <= filters) or 2 * b > channels:
            a *= 2
        else:
            b *= 2
    for position in range(positions):
        for row in range(a):
            for column in range(b):
                yield slice(row, None, a), slice(column, None, b), position


def _folded(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], math.prod(shape[2:])
