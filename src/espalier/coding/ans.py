"""Asymmetric numeral systems: symbols of known frequencies in as many bits as their entropy.

    push symbol s of frequency f, cumulated from c:   state = (state div f) 2^24 + c + state mod f
    pop:   s is the symbol with c <= state mod 2^24 < c + f;   state = f (state div 2^24) + state mod 2^24 - c

The state has 64 bits; words of 32 bits go to the stream, a stack, as it overflows and come back as it runs low. The
last symbol is pushed first. The words follow in little-endian bytes; zeros at the end are left out.

The library takes floating-point probabilities. It is given ``f_i - 1``: integers that sum to 2^24 - n, all below 2^53,
so that each of its steps is exact (its scale is 1); the tests decode its streams with integers only.

*Source*: Duda, arXiv:1311.2540; the implementation is constriction (Bamler, arXiv:2201.01741).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]  # a module made in Rust

from .bits import Malformed, Reader, block
from .tables import frequencies

Model = Any  # a distribution of the library's
_WORD = 4


def model(counts: np.ndarray) -> Model:
    """Return the frequencies of ``counts`` as the coder takes them; two symbols or more."""
    return stream.model.Categorical((frequencies(counts) - 1).astype(np.float64), perfect=False)


class Writer:
    """Pushes blocks of symbols; the block that is read first is pushed last."""

    def __init__(self) -> None:
        self._coder = stream.stack.AnsCoder()

    def push(self, symbols: np.ndarray, model: Model) -> None:
        """Push a block of int32 symbols in front of what was pushed before."""
        self._coder.encode_reverse(np.ascontiguousarray(symbols), model)

    def bytes(self) -> bytes:
        """Return the stream, preceded by its length."""
        return block(self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))


class Popper:
    """Pops blocks of symbols in the order in which they are read."""

    def __init__(self, reader: Reader) -> None:
        data = bytes(reader.block())
        words = np.frombuffer(data + b"\0" * (-len(data) % _WORD), "<u4").astype(np.uint32)
        if data[-1:] == b"\0":
            raise Malformed("a stream of symbols ends in a zero")
        self._coder = stream.stack.AnsCoder(words)

    def pop(self, count: int, model: Model) -> np.ndarray:
        """Return the next ``count`` symbols as int32."""
        return self._coder.decode(model, count)

    def close(self) -> None:
        """Check that nothing is left."""
        if not self._coder.is_empty():
            raise Malformed("a stream of symbols does not end where its symbols do")
