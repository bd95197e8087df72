"""Where a sparse tensor is not zero: one bit an element, or how many zeros lie before each, whichever is smaller.

    bitmap   a symbol of {0, 1} an element
    gaps     zeros before each element that is not zero; 255 means 255 zeros and no element

*Source*: relative indices with a filler are Deep Compression's (Han et al., arXiv:1510.00149, section 2, figure 2).
*Differs*: eight bits and entropy coding, in the place of four or five bits.
"""

from __future__ import annotations

import numpy as np

from .bits import Malformed, Reader, varint
from .symbols import read_symbols, write_symbols

_BITMAP, _GAPS = 0, 1
_FILLER = 255


def write_mask(mask: np.ndarray, shape: tuple[int, ...]) -> bytes:
    """Return a mask (bool, one dimension) of a tensor of ``shape``: how many elements it has, and where."""
    places = np.flatnonzero(mask)
    gaps = to_gaps(places)
    bitmap = bytes([_BITMAP]) + write_symbols(mask.astype(np.int32), shape, 2)
    relative = bytes([_GAPS]) + varint(len(gaps)) + write_symbols(gaps, (len(gaps),), _FILLER + 1)
    return varint(len(places)) + min(bitmap, relative, key=len)


def read_mask(reader: Reader, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the places of the elements that are not zero, ascending."""
    number = reader.varint(count)
    form = reader.byte()
    if form == _BITMAP:
        places = np.flatnonzero(read_symbols(reader, count, shape, 2))
    elif form == _GAPS:
        length = reader.varint(number + count // _FILLER)
        places = from_gaps(read_symbols(reader, length, (length,), _FILLER + 1))
    else:
        raise Malformed(f"a mask of form {form}")
    if len(places) != number or (number and int(places[-1]) >= count):
        raise Malformed("a mask does not fit its tensor")
    return places


def to_gaps(places: np.ndarray) -> np.ndarray:
    """Return ascending places as gaps, int32.

    >>> to_gaps(np.array([2, 3, 600])).tolist()
    [2, 0, 255, 255, 86]
    """
    zeros = np.diff(places, prepend=-1) - 1
    fillers, rest = np.divmod(zeros, _FILLER)
    gaps = np.full(len(places) + int(fillers.sum()), _FILLER, np.int32)
    gaps[np.cumsum(fillers + 1) - 1] = rest
    return gaps


def from_gaps(gaps: np.ndarray) -> np.ndarray:
    """Return the places that `to_gaps` was given."""
    element = gaps != _FILLER
    return (np.cumsum(gaps.astype(np.int64) + element) - 1)[element]
