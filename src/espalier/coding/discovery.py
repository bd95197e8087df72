"""What a tensor is made of, found in its numbers: few values a tensor or a channel; and grids that are known of it.

    few values in all          Codebook (k,)             clustered, binary, ternary
    few values a channel       Codebook (channels, k)    a codebook or a scale a channel of the first dimension
    a grid                     Uniform                   integers and steps that whoever quantized it knows

Each is written and compared with the numbers as they are; the smallest stays. Values are compared bit by bit, so that
what is decoded is what was given; a tensor that is off its grid is coded as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ..graph.files import Contents
from .tensors import Value, from_words, to_stream, to_words
from .values import Codebook, Uniform

_FEW = 1 << 12  # values of a tensor
_FEW_HERE = 1 << 8  # values of a channel
_SHARED = 2  # weights to a value at least
_SAMPLE = 1 << 14


def discover(held: Contents | Mapping[str, Tensor]) -> dict[str, Value]:
    """Return what tensors are made of, where saying so makes a file smaller.

    Args:
        held: what a file of a model holds, its grids among it; or tensors by name, on the CPU.
    """
    tensors, known = (held.tensors, on_grids(held)) if isinstance(held, Contents) else (held, {})
    found: dict[str, Value] = {}
    for name, tensor in tensors.items():
        candidates = [*codebooks(tensor), *([known[name]] if name in known else [])]
        if not candidates:
            continue
        sizes = [len(to_stream(tensor)), *(len(to_stream(tensor, one)) for one in candidates)]
        best = int(np.argmin(sizes))
        if best:
            found[name] = candidates[best - 1]
    return found


def on_grids(held: Contents) -> dict[str, Value]:
    """Return the tensors that lie on the grids that a model carries, as integers."""
    found: dict[str, Value] = {}
    for name, grid in held.header.grids.weights.items():
        tensor = held.tensors.get(name)
        if tensor is not None and grid.holds(tensor):
            found[name] = Uniform(integers=grid.integers(tensor), step=grid.step, axis=grid.axis, dtype=tensor.dtype)
    return found


def codebooks(tensor: Tensor) -> Iterator[Codebook]:
    """Yield the codebooks that a tensor's numbers have, for all and a channel; none where there are many numbers."""
    if not tensor.is_floating_point() or tensor.numel() < 2 * _SHARED:
        return
    words = to_words(tensor)
    step = max(1, len(words) // _SAMPLE)
    few = min(_FEW, len(words) // _SHARED)
    if len(np.unique(words[::step])) <= few:
        one = _codebook(words, tensor)
        if one is not None:
            yield one
    if tensor.dim() > 1 and len(tensor) > 1:
        one = _by_channel(words.reshape(len(tensor), -1), tensor)
        if one is not None:
            yield one


def _codebook(words: np.ndarray, tensor: Tensor) -> Codebook | None:
    entries, symbols = np.unique(words, return_inverse=True)
    if len(entries) > min(_FEW, len(words) // _SHARED):
        return None
    values, rank = _ascending(entries, tensor.dtype)
    return Codebook(symbols=_integers(rank[symbols], tensor), codebook=values)


def _by_channel(words: np.ndarray, tensor: Tensor) -> Codebook | None:
    """Return a codebook a channel; short ones repeat their last entry, which no symbol names."""
    most = min(_FEW_HERE, words.shape[1] // _SHARED)
    rows, symbols = [], np.empty(words.shape, np.int32)
    for place, row in enumerate(words):
        entries, own = np.unique(row, return_inverse=True)
        if len(entries) > most:
            return None
        values, rank = _ascending(entries, tensor.dtype)
        rows.append(values)
        symbols[place] = rank[own]
    longest = max(len(row) for row in rows)
    codebook = torch.stack([torch.cat([row, row[-1:].expand(longest - len(row))]) for row in rows])
    return Codebook(symbols=_integers(symbols, tensor), codebook=codebook)


def _ascending(entries: np.ndarray, dtype: torch.dtype) -> tuple[Tensor, np.ndarray]:
    """Return distinct numbers by value, and the place of each there; NaN are last."""
    values = from_words(entries, dtype, (len(entries),))
    order = np.argsort(values.double().numpy(), kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return values[torch.from_numpy(order)], rank


def _integers(symbols: np.ndarray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(symbols.astype(np.int32)).reshape(tensor.shape)
