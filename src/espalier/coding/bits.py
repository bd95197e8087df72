"""Bytes, variable-length integers and bit fields: what every stream is built of.

    varint     seven bits a byte, least significant first; a set high bit says that another byte follows
    bit field  code words of given lengths one after another, most significant bit first, zeros up to a whole byte
    gamma      Elias gamma code of v >= 1: as many zeros as v has bits after its first, then v itself

*Source*: Elias, IEEE Trans. Inf. Theory 21(2), 1975 (gamma).
"""

from __future__ import annotations

import numpy as np

_LONGEST = 9  # bytes of a varint: 63 bits


class Malformed(ValueError):
    """A stream does not say what a stream can say; whoever knows the file makes a `FileError` of it."""


class Reader:
    """Reads a stream from its beginning; no read goes past its end."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0
        self.size = len(self._data)

    @property
    def left(self) -> int:
        """Return how many bytes are left."""
        return self.size - self._at

    def take(self, count: int) -> memoryview:
        """Return the next ``count`` bytes."""
        if count > self.left:
            raise Malformed(f"{count} bytes are announced where {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def peek(self) -> int:
        """Return the next byte, and leave it there."""
        if not self.left:
            raise Malformed("a stream ends too early")
        return self._data[self._at]

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def varint(self, most: int) -> int:
        """Return the next variable-length integer, which may not exceed ``most``."""
        value = 0
        for place in range(_LONGEST):
            byte = self.byte()
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                break
        else:
            raise Malformed("a number does not end")
        if value > most:
            raise Malformed(f"a number is {value} where it can be {most} at most")
        return value

    def block(self) -> memoryview:
        """Return bytes that are preceded by their number."""
        return self.take(self.varint(self.left))


def varint(value: int) -> bytes:
    """Return ``value >= 0`` as a variable-length integer.

    >>> varint(5).hex(), varint(300).hex()
    ('05', 'ac02')
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def block(data: bytes) -> bytes:
    """Return bytes preceded by their number."""
    return varint(len(data)) + data


def zigzag(value: int) -> int:
    """Return a signed integer as one that is not negative: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """Return what `zigzag` was given."""
    return value >> 1 if value % 2 == 0 else -(value + 1 >> 1)


def pack_codes(codes: np.ndarray, lengths: np.ndarray, *, chunk: int = 1 << 18) -> bytes:
    """Return code words as a bit field.

    Args:
        codes: the words, as integers that are not negative.
        lengths: bits of each word, at most 62.
        chunk: words that are spread into bits at a time.
    """
    parts = [np.zeros(0, np.uint8)]
    for start in range(0, len(codes), chunk):
        size = lengths[start : start + chunk].astype(np.int64)
        ends = np.repeat(np.cumsum(size), size)
        shift = ends - 1 - np.arange(len(ends))
        parts.append((np.repeat(codes[start : start + chunk].astype(np.int64), size) >> shift & 1).astype(np.uint8))
    return np.packbits(np.concatenate(parts)).tobytes()


def pack_gamma(values: np.ndarray) -> bytes:
    """Return integers >= 1 in Elias' gamma code."""
    return pack_codes(values, gamma_lengths(values))


def gamma_lengths(values: np.ndarray) -> np.ndarray:
    """Return how many bits each integer >= 1 takes in Elias' gamma code."""
    return 2 * np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1  # frexp's exponent is the bit length


def unpack_gamma(data: memoryview, count: int) -> np.ndarray:
    """Return ``count`` integers >= 1, each below 2^31, from Elias' gamma code."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).tobytes()
    values, at = [], 0
    for _ in range(count):
        first = bits.find(1, at)
        width = first - at + 1
        if first < 0 or width > 31 or first + width > len(bits):
            raise Malformed("a table of frequencies ends too early")
        value = 0
        for bit in bits[first : first + width]:
            value = 2 * value + bit
        values.append(value)
        at = first + width
    if len(bits) - at >= 8 or any(bits[at:]):
        raise Malformed("a table of frequencies has bits to spare")
    return np.array(values, np.int64)


def pack_fixed(symbols: np.ndarray, width: int) -> bytes:
    """Return symbols of ``width`` bits each, least significant bit first: the first symbol lies lowest."""
    bits = (symbols[:, None] >> np.arange(width) & 1).astype(np.uint8)
    return np.packbits(bits, bitorder="little").tobytes()


def unpack_fixed(data: memoryview, count: int, width: int) -> np.ndarray:
    """Return ``count`` symbols of ``width`` bits each, as int32."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if any(bits[count * width :]):
        raise Malformed("packed symbols are followed by bits that are not zero")
    symbols = np.zeros(count, np.int32)
    for place in range(width):
        symbols |= bits[place : count * width : width].astype(np.int32) << place
    return symbols
