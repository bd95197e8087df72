"""One tensor, one stream: a kind, then what the kind needs.

    0  numbers    as they are (`words`)
    1  codebook   entries, axis (0: one codebook for all, else 1 + dimension), symbols, the entries as numbers
    2  uniform    levels, axis (likewise), smallest integer, symbols, the steps as numbers

Symbols begin with their method (`symbols`), or with 255: the most frequent symbol, a mask of the others, the others.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .bits import Malformed, Reader, unzigzag, varint, zigzag
from .mask import read_mask, write_mask
from .symbols import METHODS, Coder, histogram, read_symbols, write_symbols
from .tables import LARGEST_ALPHABET
from .values import Codebook, Uniform, on_grid, step_type
from .words import METHODS as WORD_METHODS
from .words import read_words, write_words

Value = Codebook | Uniform
NUMBERS, CODEBOOK, UNIFORM = range(3)
PER_BYTE = 4096  # elements, or entries of a codebook, that a byte of a stream may stand for
_SPARSE = 255  # in the place of a symbol stream's method
_SHARE = 0.5  # of the most frequent symbol, from which a mask may pay

DTYPES: dict[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8,
        torch.bool, torch.complex64,
    )
}  # fmt: skip


def to_stream(tensor: Tensor, value: Value | None = None) -> bytes:
    """Return a tensor's stream; ``value`` says what it is made of."""
    if isinstance(value, Codebook):
        return bytes([CODEBOOK]) + _write_codebook(value)
    if isinstance(value, Uniform):
        return bytes([UNIFORM]) + _write_uniform(value)
    return bytes([NUMBERS]) + _write_tensor(tensor)


def extent(tensor: Tensor, value: Value | None = None) -> int:
    """Return how many bytes a tensor's stream has at least."""
    entries = value.codebook.numel() if isinstance(value, Codebook) else 0
    return -(-max(tensor.numel(), entries) // PER_BYTE)


def from_stream(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor that `to_stream` was given."""
    kind = reader.byte()
    if kind == NUMBERS:
        return _read_tensor(reader, dtype, shape)
    if kind == CODEBOOK:
        return _read_codebook(reader, dtype, shape)
    if kind == UNIFORM and dtype.is_floating_point:
        return _read_uniform(reader, dtype, shape)
    raise Malformed(f"a tensor of kind {kind}, which this Espalier does not know")


def describe(stream: bytes | memoryview) -> tuple[str, str]:
    """Return the kind of a stream and the coder of its first symbols, in words; nothing is decoded.

    Raises:
        Malformed: the stream ends too early, or is of no known kind.
    """
    reader = Reader(stream)
    kind = reader.byte()
    if kind == NUMBERS:
        form = _named(WORD_METHODS, reader.byte())
        if form == "planes":
            reader.byte()
            return form, _named(METHODS, reader.byte())
        return form, ""
    alphabet = reader.varint(LARGEST_ALPHABET)
    for _ in range(kind):  # a codebook's axis; a grid's axis and its smallest integer
        reader.varint(1 << 24)
    method = reader.byte()
    coder = "sparse" if method == _SPARSE else _named(METHODS, method)
    return _named(("", f"codebook of {alphabet}", f"uniform, {alphabet} levels"), kind), coder


def _named(names: tuple[str, ...], place: int) -> str:
    if place >= len(names):
        raise Malformed(f"a tensor of kind {place}, which this Espalier does not know")
    return names[place]


def to_words(tensor: Tensor) -> np.ndarray:
    """Return the bits of a tensor's numbers as unsigned integers, in one dimension."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    size = flat.element_size()
    return flat.view(torch.uint8).numpy().view(f"u{size}") if flat.numel() else np.zeros(0, f"u{size}")


def from_words(words: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor that `to_words` was given."""
    if dtype == torch.bool and len(words) and int(words.max()) > 1:
        raise Malformed("a truth value that is neither 0 nor 1")
    if not len(words):
        return torch.zeros(shape, dtype=dtype)
    return torch.from_numpy(words.view(np.uint8).copy()).view(dtype).reshape(shape)


def _write_tensor(tensor: Tensor, coder: Coder = "best") -> bytes:
    return write_words(to_words(tensor), tuple(tensor.shape), is_float=tensor.is_floating_point(), coder=coder)


def _read_tensor(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return from_words(read_words(reader, shape, dtype.itemsize), dtype, shape)


def _write_codebook(value: Codebook) -> bytes:
    axis = 0 if value.codebook.ndim == 1 else 1 + value.axis % value.symbols.ndim
    symbols = _write_coded(_flat(value.symbols), tuple(value.symbols.shape), value.entries, value.coder)
    return varint(value.entries) + varint(axis) + symbols + _write_tensor(value.codebook)


def _read_codebook(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    entries, axis = reader.varint(LARGEST_ALPHABET), reader.varint(len(shape))
    size = (entries,) if axis == 0 else (shape[axis - 1], entries)
    if not entries or math.prod(size) > PER_BYTE * reader.size:
        raise Malformed(f"a codebook of {math.prod(size)} entries in a stream of {reader.size} bytes")
    symbols = torch.from_numpy(_read_coded(reader, shape, entries)).reshape(shape)
    return Codebook(symbols=symbols, codebook=_read_tensor(reader, dtype, size), axis=max(0, axis - 1)).value()


def _write_uniform(value: Uniform) -> bytes:
    axis = 0 if value.step.ndim == 0 else 1 + value.axis % value.integers.ndim
    integers = _flat(value.integers)
    low, high = (int(integers.min()), int(integers.max())) if len(integers) else (0, 0)
    symbols = _write_coded(integers - low, tuple(value.integers.shape), high - low + 1, value.coder)
    return varint(high - low + 1) + varint(axis) + varint(zigzag(low)) + symbols + _write_tensor(value.step)


def _read_uniform(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    alphabet, axis = reader.varint(LARGEST_ALPHABET), reader.varint(len(shape))
    low = unzigzag(reader.varint(1 << 24))
    if not alphabet:
        raise Malformed("a grid without integers")
    integers = torch.from_numpy(_read_coded(reader, shape, alphabet) + np.int32(low)).reshape(shape)
    step = _read_tensor(reader, step_type(dtype), () if axis == 0 else (shape[axis - 1],))
    return on_grid(integers, step, max(0, axis - 1), dtype)


def _write_coded(symbols: np.ndarray, shape: tuple[int, ...], alphabet: int, coder: Coder) -> bytes:
    """Return symbols, or a mask and the symbols that are not the most frequent one, whichever is smaller."""
    plain = write_symbols(symbols, shape, alphabet, coder=coder)
    counts = histogram(symbols, alphabet)
    zero = int(np.argmax(counts))
    if coder != "best" or len(symbols) == counts[zero] or counts[zero] < _SHARE * len(symbols):
        return plain
    rest = symbols[symbols != zero]
    values = write_symbols(rest, (len(rest),), alphabet)
    return min(plain, bytes([_SPARSE]) + varint(zero) + write_mask(symbols != zero, shape) + values, key=len)


def _read_coded(reader: Reader, shape: tuple[int, ...], alphabet: int) -> np.ndarray:
    count = math.prod(shape)
    if reader.peek() != _SPARSE:
        return read_symbols(reader, count, shape, alphabet)
    reader.byte()
    symbols = np.full(count, reader.varint(alphabet - 1), np.int32)
    places = read_mask(reader, count, shape)
    symbols[places] = read_symbols(reader, len(places), (len(places),), alphabet)
    return symbols


def _flat(integers: Tensor) -> np.ndarray:
    return integers.detach().cpu().reshape(-1).to(torch.int32).numpy()
