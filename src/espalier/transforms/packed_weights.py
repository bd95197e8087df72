"""A weight tensor of few values a filter, in one or two bits a weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_SIGNIFICAND = 24  # bits of a float32's
_MOST = 4  # values that two bits can say
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1  # of every byte


@dataclass(frozen=True, eq=False)
class FewValues:
    """Weights ``values[filter, symbols]``.

    Attributes:
        symbols: (filters, weights a filter), uint8.
        values: (filters, 2) or (filters, 4), ascending; the last one again where there are fewer.
    """

    symbols: Tensor
    values: Tensor

    @property
    def bits(self) -> int:
        """Bits a weight."""
        return 1 if self.values.shape[1] == 2 else 2

    @property
    def scales(self) -> Tensor | None:
        """Return (filters,) s where the values are -s and +s, else None."""
        one_sided = self.values[:, 0] == self.values[:, -1]  # a filter of one value: no sign is missing, but unused
        if self.bits != 1 or not bool((one_sided | (self.values[:, 0] == -self.values[:, 1])).all()):
            return None
        return self.values.abs().amax(1)

    @property
    def is_exact(self) -> bool:
        """Whether every sum of weights -s and +s is exact in float32.

        A sum of n terms is s x integer: exact where s has so few bits that the product has 24.
        """
        significands, _ = torch.frexp(self.values)
        whole = significands * 2 ** (_SIGNIFICAND - self.symbols.shape[1].bit_length())
        return bool((whole == whole.round()).all())


def few_values(weight: Tensor) -> FewValues | None:
    """Return what a weight tensor is made of; None where a filter has more than four values, or numbers are no floats.

    >>> few_values(torch.tensor([[1.0, -1.0, 1.0]])).bits
    1
    """
    if weight.dtype != torch.float32 or weight.dim() < 2:
        return None
    filters = weight.detach().flatten(1).contiguous()
    ordered = filters.sort(dim=1).values
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    count = int(starts.sum(1).max())
    if count > _MOST:
        return None
    width = 2 if count <= 2 else _MOST
    values = ordered[:, -1:].repeat(1, width)
    place = (starts.cumsum(1) - 1).masked_fill(~starts, width)  # what is no start goes to a column that is dropped
    values = torch.cat([values, values[:, -1:]], 1).scatter(1, place, ordered)[:, :width].contiguous()
    symbols = (filters[:, :, None] > values[:, None, :-1]).sum(2).to(torch.uint8)
    return FewValues(symbols, values)


def pack(symbols: Tensor, bits: int) -> Tensor:
    """Return symbols (filters, weights) in rows of bytes, ``bits`` each."""
    planes = [(symbols.numpy() >> bit & 1) for bit in range(bits)]
    return torch.from_numpy(np.concatenate([np.packbits(plane, axis=1) for plane in planes], axis=1))


def unpack(rows: Tensor, bits: int, count: int) -> Tensor:
    """Return the symbols (filters, count) of ``pack``."""
    planes = np.split(rows.numpy(), bits, axis=1)
    found = [np.unpackbits(plane, axis=1, count=count) << bit for bit, plane in enumerate(planes)]
    return torch.from_numpy(found[0] if bits == 1 else found[0] | found[1])


def unpacked(rows: Tensor, values: Tensor, count: int) -> Tensor:
    """Return the weights (filters, count) of packed symbols.

    Args:
        rows: (filters, bytes), of ``pack``.
        values: (filters, 2) or (filters, 4); one row where all filters have the same.
        count: of weights a filter.
    """
    if values.shape[1] == 2 and torch.equal(values[:, 0], -values[:, 1]):  # the common case, eight weights at a time
        signs = np.take(_SIGNS, rows.numpy(), axis=0).reshape(len(rows), -1)[:, :count]
        return torch.from_numpy(signs).mul_(values[:, 1:])
    return looked_up(unpack(rows, 1 if values.shape[1] == 2 else 2, count), values)


def looked_up(symbols: Tensor, values: Tensor) -> Tensor:
    """Return ``values[filter, symbols]``."""
    found = values[:, :1].expand(symbols.shape)
    for symbol in range(1, values.shape[1]):
        found = torch.where(symbols == symbol, values[:, symbol : symbol + 1], found)
    return found
