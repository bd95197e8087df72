"""Symbols, masks and numbers come back as they were, whichever coder wrote them, and take what theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.coding import bits, context, huffman, mask, order0, symbols, tables, words
from espalier.coding.bits import Malformed, Reader

CODERS = ("best", "packed", "static", "adaptive", "context", "huffman")
SIZES = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


@st.composite
def drawn(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...], int]:
    """Return symbols, their tensor's shape, and the size of their alphabet."""
    shape = draw(st.sampled_from([(0,), (1,), (7,), (300,), (12, 12), (16, 16, 3, 3), (40, 32), (5000,), (1, 9, 1, 1)]))
    alphabet = draw(st.sampled_from([1, 2, 3, 16, 255, 256, 257, 5000]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    skew = draw(st.sampled_from([0.0, 0.5, 2.0, 8.0]))
    chances = np.exp(-skew * np.arange(alphabet) ** 0.5)
    chosen = generator.choice(alphabet, size=math.prod(shape), p=chances / chances.sum()).astype(np.int32)
    return chosen, shape, alphabet


@given(case=drawn(), coder=st.sampled_from(CODERS), activity=st.sampled_from([context.LEVEL, context.DISTANCE]))
def test_symbols_come_back(case: tuple[np.ndarray, tuple[int, ...], int], coder, activity: int) -> None:
    chosen, shape, alphabet = case
    data = symbols.write_symbols(chosen, shape, alphabet, coder=coder, activity=activity)
    reader = Reader(data)
    assert np.array_equal(symbols.read_symbols(reader, len(chosen), shape, alphabet), chosen) and not reader.left


@given(case=drawn())
def test_the_best_coder_is_the_smallest(case: tuple[np.ndarray, tuple[int, ...], int]) -> None:
    chosen, shape, alphabet = case
    sizes = {coder: len(symbols.write_symbols(chosen, shape, alphabet, coder=coder)) for coder in CODERS}
    others = (sizes[coder] for coder in ("packed", "static", "adaptive"))
    assert sizes["best"] <= min(others) + 0.002 * sizes["packed"]  # what entropy coding must save to be tried


@given(
    case=drawn(), size=st.sampled_from(list(SIZES)), zeros=st.floats(0, 1), is_float=st.booleans(), few=st.booleans()
)
def test_numbers_come_back(case, size: int, zeros: float, is_float: bool, few: bool) -> None:
    chosen, shape, _ = case
    generator = np.random.default_rng(len(chosen))
    pool = generator.integers(0, 2**size, size=9, dtype=SIZES[size])
    given_ = generator.choice(pool, len(chosen)) if few else generator.integers(0, 2**size, len(chosen), SIZES[size])
    given_[generator.random(len(chosen)) < zeros] = 0
    data = words.write_words(given_, shape, is_float=is_float)
    reader = Reader(data)
    back = words.read_words(reader, shape, size // 8)
    assert back.dtype == given_.dtype and np.array_equal(back, given_) and not reader.left


@given(chosen=st.lists(st.booleans(), max_size=4000), repeat=st.integers(1, 40))
def test_masks_come_back(chosen: list[bool], repeat: int) -> None:
    given_ = np.repeat(np.array(chosen, bool), repeat)
    given_[1::3] = False
    data = mask.write_mask(given_, (len(given_),))
    reader = Reader(data)
    assert np.array_equal(mask.read_mask(reader, len(given_), (len(given_),)), np.flatnonzero(given_))
    assert not reader.left
    places = np.flatnonzero(given_)
    assert np.array_equal(mask.from_gaps(mask.to_gaps(places)), places)


@given(value=st.integers(0, 2**62), signed=st.integers(-(2**40), 2**40))
def test_integers_come_back(value: int, signed: int) -> None:
    assert Reader(bits.varint(value)).varint(2**62) == value
    assert bits.unzigzag(bits.zigzag(signed)) == signed


@given(values=st.lists(st.integers(1, 2**30), max_size=300))
def test_gamma_codes_come_back(values: list[int]) -> None:
    array = np.array(values, np.int64)
    data = bits.pack_gamma(array)
    assert np.array_equal(bits.unpack_gamma(memoryview(data), len(values)), array)
    assert len(data) == -(-int(bits.gamma_lengths(array).sum()) // 8)


@given(histogram=st.lists(st.integers(0, 10**9), min_size=2, max_size=500).filter(any))
def test_frequencies_are_whole_and_sum_to_one(histogram: list[int]) -> None:
    counts = np.array(histogram, np.int64)
    found = tables.frequencies(counts)
    assert found.min() >= 1 and found.sum() == 1 << tables.PRECISION
    exact = counts / counts.sum() * (1 << tables.PRECISION)
    assert np.abs(found - exact).max() <= 2 * len(counts) + 1


def entropy_bits(histogram: np.ndarray) -> float:
    used = histogram[histogram > 0]
    return float((used * np.log2(used.sum() / used)).sum())


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("alphabet", [2, 17, 256])
def test_order_0_takes_its_entropy(zeros: float, alphabet: int) -> None:
    generator = np.random.default_rng(alphabet)
    weights = np.abs(generator.normal(size=1_000_000)) * alphabet / 5
    chosen = np.where(generator.random(len(weights)) < zeros, 0, np.minimum(weights, alphabet - 1)).astype(np.int32)
    counts = np.bincount(chosen, minlength=alphabet)
    exact = entropy_bits(counts) / 8
    table, _ = tables.write_table(counts)
    assert len(table) <= 10 + 1.5 * alphabet
    assert exact - 1 <= len(order0.write_static(chosen, counts)) - len(table) <= 1.001 * exact + 10
    assert exact - 1 <= len(order0.write_adaptive(chosen, alphabet)) <= 1.001 * exact + 10 + alphabet


def test_zeros_cost_far_less_than_huffman() -> None:
    generator = np.random.default_rng(0)
    kept = generator.choice([-1, 1], size=400_000)
    chosen = (np.where(generator.random(len(kept)) < 0.9, 0, kept) + 1).astype(np.int32)
    sizes = {
        coder: 8 * len(symbols.write_symbols(chosen, chosen.shape, 3, coder=coder)) / len(chosen) for coder in CODERS
    }
    assert (
        sizes["best"] <= sizes["static"] <= 0.60 and 1.09 <= sizes["huffman"] <= 1.20 and 2.0 <= sizes["packed"] < 2.01
    )


def test_huffman_is_as_short_as_a_code_can_be() -> None:
    histogram = np.array([5, 9, 12, 13, 16, 45, 0])  # the textbook's
    lengths = huffman.code_lengths(histogram)
    assert lengths.tolist() == [4, 4, 3, 3, 3, 1, 0] and int((lengths * histogram).sum()) == 224
    codes = [f"{code:0{length}b}" for code, length in zip(huffman.canonical(lengths), lengths, strict=True) if length]
    assert len(set(codes)) == 6 and not any(a != b and b.startswith(a) for a in codes for b in codes)


def test_a_mask_takes_the_smaller_form() -> None:
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.random(256) < 0.5, 256)  # whole filters: gaps are long, a bitmap's contexts see them
    for given_ in (rows, generator.random(65536) < 0.5, generator.random(65536) < 0.02, np.arange(65536) % 16 == 0):
        shape = (256, 256)
        gaps = mask.to_gaps(np.flatnonzero(given_))
        forms = [
            symbols.write_symbols(given_.astype(np.int32), shape, 2),
            bits.varint(len(gaps)) + symbols.write_symbols(gaps, (len(gaps),), 256),
        ]
        smallest = min(map(len, forms))
        assert smallest < len(mask.write_mask(given_, shape)) <= smallest + 4


def test_contexts_see_filters_and_kernels() -> None:
    generator = np.random.default_rng(0)
    scale = generator.lognormal(0, 1.2, (64, 1, 1)) * generator.lognormal(0, 0.5, (1, 64, 1))
    weights = generator.laplace(size=(64, 64, 9)) * scale
    chosen = (np.clip(np.round(weights), -20, 20) + 20).astype(np.int32).reshape(-1)
    order_0 = len(symbols.write_symbols(chosen, chosen.shape, 41))
    assert len(symbols.write_symbols(chosen, (64, 64, 3, 3), 41)) < 0.9 * order_0
    assert len(symbols.write_symbols(chosen[generator.permutation(len(chosen))], (64, 64, 3, 3), 41)) <= order_0 + 8


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x09",
        b"\x02\x01",
        b"\x02\x01\xff\x00",
        b"\x01\xff\xff",
        b"\x00\x04",
        b"\x03\x00\x04abcd",
        b"\x05\x21\x04abcdefghi",
        b"\x04\x02",
    ],
)
def test_what_no_writer_wrote_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        symbols.read_symbols(Reader(data), 1000, (1000,), 3)
