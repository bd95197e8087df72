"""Whatever is done to a file: it decodes to the same bits or is refused, quickly and in bounded memory.

`benchmarks/hostile.py` tries a hundred thousand files; here are a few hundred of the same, and those with a name.
"""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path
from random import Random

import pytest
import torch

from espalier import coding
from espalier.core import FileError

from .coding_files import joined, mutations, parts, resealed, same, written


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, torch.Tensor]]:
    path = tmp_path_factory.mktemp("coded") / "all.esp"
    return (tensors := written(path)) and (path.read_bytes(), tensors)  # type: ignore[return-value]


def refused(path: Path, data: bytes, message: str) -> None:
    path.write_bytes(data)
    with pytest.raises(FileError, match=message) as error:
        coding.decode(path, threads=1)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


def test_mutated_files_are_the_same_or_refused(original, tmp_path: Path) -> None:
    data, tensors = original
    path, accepted = tmp_path / "m.esp", 0
    for number, (what, changed) in enumerate(mutations(data, Random(0))):
        if number == 350:
            break
        path.write_bytes(changed)
        try:
            back = coding.decode(path, threads=1)
        except FileError:
            continue
        accepted += 1
        assert what != "bits", "every bit of a file is covered"
        assert list(back) == list(tensors) and all(same(back[name], tensors[name]) for name in tensors), what
    assert accepted < 50  # what writes zeros in the place of zeros


def test_every_byte_is_covered(original, tmp_path: Path) -> None:
    coding.encode({"a": torch.arange(90.0), "b": torch.zeros(3)}, tmp_path / "m.esp")
    data = (tmp_path / "m.esp").read_bytes()
    for place in range(len(data)):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            refused(tmp_path / "x.esp", bytes(changed), "not an .esp file|damaged|truncated|format version")
    for size in range(len(data)):
        refused(tmp_path / "x.esp", data[:size], "not an .esp file|damaged|truncated")


def test_headers_that_lie_are_refused(original, tmp_path: Path) -> None:
    data, _ = original
    header, streams = parts(data)
    first, *rest = header["tensors"]
    name, dtype, shape, size = first

    def tensors(*one: object) -> bytes:
        return joined({**header, "tensors": [list(one), *rest]}, streams)

    for changed, message in [
        (tensors(name, dtype, [2**40], size), "cannot be in"),
        (tensors(name, dtype, [4096 * size], size), "cannot be in"),
        (tensors(name, dtype, [0, 2**62], size), "cannot be in"),
        (tensors(name, dtype, [-1], size), "has no shape"),
        (tensors(name, dtype, [1] * 65, size), "has no shape"),
        (tensors(name, dtype, [1.0], size), "has no shape"),
        (tensors(name, dtype, [True], size), "has no shape"),
        (tensors(name, "object", shape, size), "unknown type"),
        (tensors(name, [], shape, size), "cannot be read"),
        (tensors("\x1b[2J", dtype, shape, size), "name that cannot be shown"),
        (tensors(rest[0][0], dtype, shape, size), "is there twice"),
        (tensors(7, dtype, shape, size), "has no name"),
        (tensors(name, dtype, shape, size + 1), "streams end at byte"),
        (tensors(name, dtype, shape, 2**50), "streams end at byte"),
        (tensors(name, dtype, shape, True), "has no stream"),
        (joined({**header, "tensors": {}}, streams), "streams end at byte"),
        (joined({**header, "extra": 1}, streams), "not written as a header is"),
        (joined({**header, "sha256": "0" * 64}, streams), "do not match their SHA-256"),
        (joined({**header, "sha256": 5}, streams), "cannot be read"),
        (joined({**header, "proof": "trust me"}, streams), "proof"),
        (joined({**header, "architecture": "\x1b[2J"}, streams), "characters that cannot be shown"),
        (joined({**header, "architecture": 5}, streams), "characters that cannot be shown"),
        (joined({**header, "aliases": [["a", 5]]}, streams), "no names"),
        (joined({**header, "surgery": [{"op": "exec"}]}, streams), "unknown operation"),
        (joined(header, streams, version=3), "format version 3; this Espalier reads versions 1 and 2"),
        (joined(header, streams, text=b"[" * 100_000), "cannot be read"),
        (joined(header, streams, text=b'{"proof": NaN}'), "cannot be read"),
        (joined(header, streams, text=b"\xff\xfe"), "cannot be read"),
        (joined(header, streams, how=1), "cannot be read"),
        (joined(header, streams, how=7), "longer than the file"),
        (joined(header, streams, length=2**32 - 1), "cannot be 4294967295 characters long"),
        (joined(header, streams, how=1, stored=zlib.compress(b"0" * 10**6, 9)[2:-4], length=60_000), "not as long"),
    ]:
        refused(tmp_path / "m.esp", changed, message)


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    """Each of these would take gigabytes if what it declares were believed."""
    header = {"architecture": "", "aliases": [], "proof": "not proved", "sha256": "0" * 64, "surgery": []}
    varint = b"\xff\xff\xff\xff\x7f"
    streams = {
        "codebook": b"\x01" + b"\x80\x80\x04" + b"\x01" + b"\x00\x00" + b"\x01\x00" + b"\x00\x00" * 4,
        "planes": b"\x00\x01\x01" + b"\x02" + varint,
        "codebook of numbers": b"\x00\x02" + varint,
        "mask": b"\x00\x03" + varint + b"\x01" + varint,
        "gaps": b"\x02\x03\x00\x00\xff\x01\x05\x01" + varint,
        "grid": b"\x02" + varint,
        "table": b"\x00\x01\x00\x02" + varint,
    }
    for payload in streams.values():
        stream = resealed(payload.ljust(40, b"\0") + b"\0" * 4)
        shape = [40 * 4096 // 64, 64]
        data = joined({**header, "tensors": [["w", "float64", shape, len(stream)]]}, stream)
        tracemalloc.start()
        refused(tmp_path / "m.esp", data, "is damaged: tensor 'w'")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 32e6  # the tensor itself may have 1.3 MB


def test_other_files_are_no_esp_files(tmp_path: Path) -> None:
    for data in (b"", b"\x89ESP", b"PK\x03\x04" + b"0" * 99, b"\x89ESP\n\x1a\n" + b"\0" * 99):
        refused(tmp_path / "m.esp", data, "is not an .esp file")
    with pytest.raises(FileError, match="cannot read"):
        coding.decode(tmp_path / "nowhere.esp")
    with pytest.raises(FileError, match="cannot read"):
        coding.inspect(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"neither")
    with pytest.raises(FileError, match="neither .esp nor safetensors"):
        coding.inspect(tmp_path / "x.bin")
