"""The entropy coder's streams, read with Python's integers alone: they are the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from espalier.coding import order0
from espalier.coding.ans import Popper, Writer, model
from espalier.coding.bits import Reader
from espalier.coding.tables import frequencies, read_table


def popped(words: list[int], blocks: list[tuple[int, list[int]]]) -> tuple[list[int], int]:
    """Return the symbols of an ANS stack, and what is left in its state.

    Args:
        words: 32 bits each; the last was pushed last.
        blocks: (how many symbols, their frequencies), in the order in which they are read.
    """
    state = 0
    for _ in range(2):
        state = state << 32 | words.pop() if words else state
    symbols = []
    for count, table in blocks:
        starts = np.concatenate([[0], np.cumsum(table)]).tolist()
        for _ in range(count):
            low = state & 0xFFFFFF
            symbol = int(np.searchsorted(starts, low, side="right")) - 1
            state = (state >> 24) * table[symbol] + low - starts[symbol]
            if state < 1 << 32 and words:
                state = state << 32 | words.pop()
            symbols.append(symbol)
    return symbols, state + len(words)


def words_of(data: memoryview | bytes) -> list[int]:
    padded = bytes(data) + b"\0" * (-len(data) % 4)
    return [int.from_bytes(padded[at : at + 4], "little") for at in range(0, len(padded), 4)]


@pytest.mark.parametrize("alphabet", [2, 3, 41, 256, 3000])
def test_integers_read_a_static_stream(alphabet: int) -> None:
    generator = np.random.default_rng(alphabet)
    chosen = np.minimum(generator.exponential(alphabet / 6, 4000), alphabet - 1).astype(np.int32)
    reader = Reader(order0.write_static(chosen, np.bincount(chosen, minlength=alphabet)))
    table = frequencies(read_table(reader, alphabet)).tolist()
    found, left = popped(words_of(reader.block()), [(len(chosen), table)])
    assert found == chosen.tolist() and left == 0


def test_integers_read_an_adaptive_stream() -> None:
    chosen = np.random.default_rng(0).binomial(12, 0.2, 3000).astype(np.int32)
    reader = Reader(order0.write_adaptive(chosen, 13))
    weight, counts, blocks = reader.varint(1000), np.zeros(13, np.int64), []
    for start, stop in order0.blocks(len(chosen)):
        blocks.append((stop - start, frequencies(1 + weight * counts).tolist()))
        counts += np.bincount(chosen[start:stop], minlength=13)
    found, left = popped(words_of(reader.block()), blocks)
    assert found == chosen.tolist() and left == 0


@pytest.mark.parametrize("counts", [[1, 0], [1, 10**11], [3] * 65536, [0, 7, 0, 0, 1]])
def test_extreme_tables_are_exact(counts: list[int]) -> None:
    table = np.array(counts, np.int64)
    chosen = np.arange(len(counts), dtype=np.int32)[:200].repeat(3)
    writer = Writer()
    writer.push(chosen, model(table))
    found, left = popped(words_of(Reader(writer.bytes()).block()), [(len(chosen), frequencies(table).tolist())])
    assert found == chosen.tolist() and left == 0
    popper = Popper(Reader(writer.bytes()))
    assert popper.pop(len(chosen), model(table)).tolist() == found
