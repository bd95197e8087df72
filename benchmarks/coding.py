"""The entropy coder: symbols a second on one core, bits against entropy and Huffman, and checkpoints against zstd.

    python -m benchmarks.coding [--symbols 4000000] [--rounds 3] [--weights FILE ...] [--peers]

Speeds are of processor time, the best of ``--rounds``, with everything that writing takes: counting, the table, the
choice among coders. Checkpoints are coded losslessly; ``--peers`` adds zstd at level 19 and ZipNN on the same bytes.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from espalier import coding
from espalier.coding.bits import Reader
from espalier.coding.symbols import Coder, read_symbols, write_symbols
from espalier.zoo.checkpoints import read_tensors

from .tables import table

WEIGHTS = Path(__file__).parents[1] / ".." / "shared" / "data" / "weights"
CODERS: tuple[Coder, ...] = ("static", "adaptive", "context", "huffman", "best")


def main() -> None:
    """Print the tables."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--symbols", type=int, default=4_000_000)
    line.add_argument("--rounds", type=int, default=3)
    line.add_argument("--weights", type=Path, nargs="*", default=sorted(WEIGHTS.glob("cifar10-*.safetensors")))
    line.add_argument("--peers", action="store_true")
    options = line.parse_args()
    torch.set_num_threads(1)
    for name, symbols, alphabet in drawn(options.symbols):
        print(f"\n{name}: {len(symbols):,} symbols of {alphabet}, order-0 entropy {entropy(symbols):.4f} bits\n")
        rows = [coded(symbols, alphabet, coder, options.rounds) for coder in CODERS]
        print(table(rows, ["coder", "bits", "over entropy", "encode, Msym/s", "decode, Msym/s"]), flush=True)
    for path in options.weights:
        checkpoint(path, peers=options.peers)


def drawn(count: int) -> list[tuple[str, np.ndarray, int]]:
    """Return quantized weights as they are found: dense ones of 4 and 8 bits, and 90 % zeros."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=count)
    zeros = generator.random(count) < 0.9
    signs = np.where(zeros, 0, np.sign(weights)) + 1
    return [
        ("4 bits", (np.clip(np.round(weights / 0.4), -7, 7) + 7).astype(np.int32), 15),
        ("8 bits", (np.clip(np.round(weights / 0.03), -127, 127) + 127).astype(np.int32), 255),
        ("ternary, 90 % zeros", signs.astype(np.int32), 3),
    ]


def coded(symbols: np.ndarray, alphabet: int, coder: Coder, rounds: int) -> list[str]:
    """Return one row: size and speed of a coder, whose symbols come back the same."""
    shape = (len(symbols) // 1000, 1000)
    data, encode = timed(lambda: write_symbols(symbols, shape, alphabet, coder=coder), rounds)
    back, decode = timed(lambda: read_symbols(Reader(data), len(symbols), shape, alphabet), rounds)
    assert np.array_equal(back, symbols)
    bits = 8 * len(data) / len(symbols)
    speeds = [f"{len(symbols) / seconds / 1e6:.1f}" for seconds in (encode, decode)]
    return [coder, f"{bits:.4f}", f"{100 * (bits / entropy(symbols) - 1):+.3f} %", *speeds]


def entropy(symbols: np.ndarray) -> float:
    """Return the order-0 entropy in bits a symbol."""
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / len(symbols)
    return float(-(shares * np.log2(shares)).sum())


def checkpoint(path: Path, *, peers: bool) -> None:
    """Print what a file's tensors take, losslessly."""
    tensors = load_file(path) if path.suffix == ".safetensors" else read_tensors(path)
    raw = b"".join(bytes(t.contiguous().reshape(-1).view(torch.uint8).numpy()) for t in tensors.values() if t.numel())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "m.esp"
        report, encode = timed(lambda: coding.encode(tensors, target, threads=1), 1)
        back, decode = timed(lambda: coding.decode(target, threads=1), 1)
        size = os.stat(target).st_size
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())
    rows = [["espalier", f"{size:,}", f"{size / len(raw):.4f}", f"{encode:.2f}", f"{decode:.2f}"]]
    rows += [peer(name, work, raw) for name, work in (others() if peers else ())]
    print(f"\n{path.name}: {len(report.tensors)} tensors, {len(raw):,} bytes\n")
    print(table(rows, ["", "bytes", "share", "encode, s", "decode, s"]), flush=True)


def others() -> list[tuple[str, tuple[Callable, Callable]]]:
    """Return the peers, each as (compress, decompress)."""
    import zipnn
    import zstandard

    small = zstandard.ZstdCompressor(level=19), zstandard.ZstdDecompressor()
    pair = zipnn.ZipNN(bytearray_dtype="float32", threads=1)
    return [
        ("zstd -19", (small[0].compress, small[1].decompress)),
        ("ZipNN", (lambda raw: pair.compress(bytearray(raw)), pair.decompress)),
    ]


def peer(name: str, work: tuple[Callable, Callable], raw: bytes) -> list[str]:
    """Return one row: a peer on all tensors' bytes, one after another, without names and shapes."""
    data, encode = timed(lambda: work[0](raw), 1)
    back, decode = timed(lambda: work[1](data), 1)
    assert bytes(back) == raw
    return [name, f"{len(data):,}", f"{len(data) / len(raw):.4f}", f"{encode:.2f}", f"{decode:.2f}"]


def timed(work: Callable, rounds: int) -> tuple:
    """Return what ``work`` gives, and its processor seconds: the fewest of ``rounds``."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        found = work()
        best = min(best, time.process_time() - start)
    return found, best


if __name__ == "__main__":
    main()
