"""A hundred thousand damaged and hostile model files: each decodes to the same bits, or is refused.

    python -m benchmarks.hostile [--files 100000] [--seed 0] [--seconds 5] [--gigabytes 1]

Half of them are ``.esp``, half ``.safetensors``: flipped bits, cuts, splices, and what a hostile author writes, with
hashes and CRCs that fit: edited headers, huge declared sizes, streams that say something else. A file that is taken for
whole with other bits, another error than FileError, one that takes longer than ``--seconds`` or memory beyond
``--gigabytes`` more than the process has at the start ends the run with 1; so does a crash, by itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.laws.coding_files import mutations, same, written
from torch import Tensor

from espalier import coding
from espalier.core import FileError
from espalier.graph import files

from .tables import table


def main() -> None:
    """Try all files, and print how many were refused of each kind of mutation."""
    line = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    line.add_argument("--files", type=int, default=100_000)
    line.add_argument("--seed", type=int, default=0)
    line.add_argument("--seconds", type=int, default=5)
    line.add_argument("--gigabytes", type=float, default=1.0)
    options = line.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        esp, plain = Path(folder) / "m.esp", Path(folder) / "m.safetensors"
        tensors = written(esp)
        files.write(coding.decoded(esp), plain)
        limit_memory(options.gigabytes)
        trials = [
            (esp, mutations(esp.read_bytes(), Random(options.seed)), lambda path: coding.decode(path, threads=1)),
            (plain, safetensors_mutations(plain, Random(options.seed)), lambda path: files.read(path).tensors),
        ]
        for path, changed, read in trials:
            tried(path, changed, read, tensors, options)


def tried(path: Path, changed: Iterator[tuple[str, bytes]], read: Callable, tensors: dict, options) -> None:
    """Try half of the files, in one format."""
    taken, refused, slowest, start = Counter(), Counter(), 0.0, time.monotonic()
    for _ in range(options.files // 2):
        what, data = next(changed)
        path.write_bytes(data)
        signal.alarm(options.seconds)  # nothing catches it: a hang ends the run
        began = time.monotonic()
        try:
            same_or_exit(read(path), tensors, path, what)
            taken[what] += 1
        except FileError:
            refused[what] += 1
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.monotonic() - began)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"\n{path.suffix}: {options.files // 2:,} files, {seconds:.0f} s, the slowest {slowest:.2f} s; "
        f"peak of the process {peak:.2f} GiB\n"
    )
    print(table([[k, f"{refused[k]:,}", f"{taken[k]:,}"] for k in sorted({*refused, *taken})], ["", "refused", "same"]))
    sys.stdout.flush()


def same_or_exit(found: dict[str, Tensor], tensors: dict[str, Tensor], path: Path, what: str) -> None:
    """End the run where a mutated file was taken for another one."""
    if set(found) != set(tensors) or not all(same(found[name], tensors[name]) for name in tensors):
        kept = Path("hostile" + path.suffix)
        kept.write_bytes(path.read_bytes())
        sys.exit(f"a file mutated by {what} was taken, with other bits: {kept}")


def limit_memory(gigabytes: float) -> None:
    """Let no allocation take the process beyond what it has now and ``gigabytes`` more."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = now + int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def safetensors_mutations(path: Path, random: Random) -> Iterator[tuple[str, bytes]]:
    """Yield the same damage, and headers that lie, for a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    values = [None, -1, 2**63, "F64", "X", [], [2**40, 2**40], [0, 2**62], [5, 3], {}]
    while True:
        for place in range(5):
            changed = bytearray(data)
            changed[random.randrange(len(data) if place else 8 + size)] ^= 1 << random.randrange(8)
            yield "bits", bytes(changed)
        yield "cut", data[: random.randrange(len(data))]
        yield "longer", data + random.randbytes(random.randrange(1, 40))
        lie = json.loads(json.dumps(header))
        one = lie[random.choice(names)]
        one[random.choice(["dtype", "shape", "data_offsets"])] = random.choice(values)
        text = json.dumps(lie).encode()
        yield "header", len(text).to_bytes(8, "little") + text + data[8 + size :]
        lie = json.loads(json.dumps(header))
        lie["__metadata__"][random.choice(sorted(lie["__metadata__"]))] = str(random.choice(values))
        text = json.dumps(lie).encode()
        yield "metadata", len(text).to_bytes(8, "little") + text + data[8 + size :]
        yield "sizes", random.choice([2**63, 2**31, size + 1, size - 1, 0]).to_bytes(8, "little") + data[8:]


if __name__ == "__main__":
    main()
