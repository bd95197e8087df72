"""The format, byte by byte: a file of version 1 that is kept, which every later Espalier must read to the same bits.

When the format changes on purpose, it has another version; this file stays. When a writer learns to be smaller within
version 1, write the file anew:  python -c "from tests.reference.test_coding_golden import *; written(FILE)"
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from espalier import coding

from ..laws.coding_files import every_kind, parts, same, written

FILE = Path(__file__).parents[1] / "golden" / "every-kind.esp"


def test_the_kept_file_is_read_to_the_same_bits() -> None:
    tensors, _ = every_kind()
    back = coding.decode(FILE)
    assert list(back) == list(tensors) and all(same(back[name], tensors[name]) for name in tensors)


def test_the_writer_writes_the_kept_bytes(tmp_path: Path) -> None:
    written(tmp_path / "m.esp")
    # deflate may write a header in other bytes where another library does it; what it says is the same
    assert parts((tmp_path / "m.esp").read_bytes()) == parts(FILE.read_bytes())


def test_a_file_by_hand(tmp_path: Path) -> None:
    """The smallest file, each byte of it as docs/coding.md says."""
    listed = f'[["w","int8",[3],"{hashlib.sha256(bytes([1, 2, 255])).hexdigest()}"]]'
    root = hashlib.sha256(listed.encode()).hexdigest()
    head = f'{{"aliases":[],"architecture":"","proof":"not proved","sha256":"{root}","surgery":[],'
    text = (head + '"tensors":[["w","int8",[3],9]]}').encode()
    stream = b"\x00\x00\x01\x02\xff"  # numbers, raw, and the numbers
    stream += (0xFFFFFFFF & _crc(stream)).to_bytes(4, "little")
    fixed = b"\x89ESP\r\n\x1a\n" + b"\x01\x00" + b"\x00\x00" + len(text).to_bytes(4, "little") * 2
    data = fixed + hashlib.sha256(fixed + text).digest() + text + stream
    (tmp_path / "m.esp").write_bytes(data)
    assert coding.decode(tmp_path / "m.esp")["w"].tolist() == [1, 2, -1]


def _crc(data: bytes) -> int:
    """Return the CRC-32 of ISO 3309, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return ~crc
