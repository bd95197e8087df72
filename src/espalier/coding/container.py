"""The ``.esp`` file: a prologue, a header, and one stream a tensor. `docs/coding.md` says it byte by byte.

    prologue  8 bytes magic, u16 version, u16 how the header is stored (0 plain, 1 deflate), u32 its bytes in the file,
              u32 its bytes as text, 32 bytes SHA-256 of all of these and of the header as stored
    header    canonical JSON: architecture, surgery, aliases, proof, grids (of version 2), tensors [[name, type, shape,
              stream bytes], ...], and the SHA-256 of [[name, type, shape, SHA-256 of its bytes], ...]
    streams   in that order, nothing between or after: payload, zeros, CRC-32 of both

Every byte is covered by a hash, a CRC or a comparison, and no number is believed before it is bounded by bytes that
are there: a stream of b bytes stands for at most 4,096 b elements, a header of b bytes for 64 b characters.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import FileError, Surgery
from ..graph.header import Header, check_shown, parse, read_grids
from .bits import Malformed
from .tensors import DTYPES, PER_BYTE

MAGIC = b"\x89ESP\r\n\x1a\n"
VERSION, WITH_GRIDS = 1, 2  # the second has the entry `grids`, which no reader of the first would heed
_FIXED = struct.Struct("<8sHHII")
_DIGEST = 32
PROLOGUE_BYTES = _FIXED.size + _DIGEST
_PLAIN, _DEFLATE = 0, 1
_DENSEST = 64  # characters that a byte of a stored header may stand for
_LARGEST_HEADER = 1 << 28
_DIMENSIONS = 64
_ENTRIES = {"aliases", "architecture", "proof", "sha256", "surgery", "tensors"}


@dataclass(frozen=True)
class Layout:
    """What a file says before its streams.

    Attributes:
        header: as that of ``model.safetensors``; a tensor's own hash is "".
        sha256: of all decoded tensors; see `root`.
        streams: ``{name: (first byte in the file, bytes)}``, in the file's order.
    """

    header: Header
    sha256: str
    streams: Mapping[str, tuple[int, int]]


def prologue(header: Header, sha256: str, sizes: Mapping[str, int]) -> bytes:
    """Return what comes before the streams, which have ``sizes`` bytes and follow in the header's order."""
    data = {
        "aliases": list(header.aliases.items()),
        "architecture": header.architecture,
        "proof": header.proof,
        "sha256": sha256,
        "surgery": header.surgery.to_data(),
        "tensors": [[name, dtype, shape, sizes[name]] for name, (dtype, shape, _) in header.tensors.items()],
    }
    if header.grids:
        data["grids"] = header.grids.to_data()
    text = canonical(data)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    deflated = packer.compress(text) + packer.flush()
    dense = len(deflated) * _DENSEST < len(text) or len(deflated) >= len(text)
    how, stored = (_PLAIN, text) if dense else (_DEFLATE, deflated)
    fixed = _FIXED.pack(MAGIC, WITH_GRIDS if header.grids else VERSION, how, len(stored), len(text))
    return fixed + hashlib.sha256(fixed + stored).digest() + stored


def read_layout(source: Path) -> Layout:
    """Return what a file says before its streams, checked; no stream is read.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign.
    """
    try:
        with open(source, "rb") as file:
            fixed = file.read(PROLOGUE_BYTES)
            version, how, stored, length = _checked(fixed, source, os.fstat(file.fileno()).st_size)
            held = file.read(stored)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from error
    if hashlib.sha256(fixed[: _FIXED.size] + held).digest() != fixed[_FIXED.size :]:
        raise FileError(f"{source} is damaged: its header does not match its SHA-256")
    try:
        return _layout(_text(held, how, length), version, (PROLOGUE_BYTES + stored, size), source)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError, zlib.error) as error:
        raise FileError(f"{source} is damaged or foreign: its header cannot be read ({error!r:.120})") from error


def canonical(data: Any) -> bytes:
    """Return the one text that says ``data``: names sorted, no spaces, UTF-8."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def root(tensors: Mapping[str, tuple[str, tuple[int, ...], str]]) -> str:
    """Return the SHA-256 of what a header says about all tensors: ``{name: (type, shape, SHA-256 of its bytes)}``."""
    lines = [[name, dtype, shape, digest] for name, (dtype, shape, digest) in tensors.items()]
    return hashlib.sha256(canonical(lines)).hexdigest()


def sealed(payload: bytes, least: int) -> bytes:
    """Return a stream: at least ``least`` bytes with its CRC."""
    payload = payload.ljust(least, b"\0")
    return payload + zlib.crc32(payload).to_bytes(4, "little")


def opened(stream: memoryview) -> memoryview:
    """Return a stream without its CRC.

    Raises:
        Malformed: the CRC is that of other bytes.
    """
    if len(stream) < 4 or zlib.crc32(stream[:-4]) != int.from_bytes(stream[-4:], "little"):
        raise Malformed("it does not match its CRC-32")
    return stream[:-4]


def _checked(fixed: bytes, source: Path, size: int) -> tuple[int, int, int, int]:
    """Return the version, how the header is stored, and its bytes in the file and as text."""
    if fixed[: len(MAGIC)] != MAGIC:
        raise FileError(f"{source} is not an .esp file: it begins with other bytes than those")
    if len(fixed) < PROLOGUE_BYTES:
        raise FileError(f"{source} is truncated: it ends within its first {PROLOGUE_BYTES} bytes")
    _, version, how, stored, length = _FIXED.unpack(fixed[: _FIXED.size])
    if version not in (VERSION, WITH_GRIDS):
        raise FileError(
            f"{source} has .esp format version {version}; this Espalier reads versions {VERSION} and {WITH_GRIDS}"
        )
    if how not in (_PLAIN, _DEFLATE) or stored > size - PROLOGUE_BYTES:
        raise FileError(f"{source} is truncated or damaged: its header would be longer than the file")
    if length > min(_DENSEST * stored, _LARGEST_HEADER) or (how == _PLAIN and length != stored):
        raise FileError(f"{source} is damaged: its header of {stored} bytes cannot be {length} characters long")
    return version, how, stored, length


def _text(held: bytes, how: int, length: int) -> bytes:
    if how == _PLAIN:
        return held
    opener = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    text = opener.decompress(held, length)
    if len(text) != length or opener.decompress(opener.unconsumed_tail, 1) or not opener.eof or opener.unused_data:
        raise ValueError("it is not as long as it says")
    return text


def _layout(text: bytes, version: int, place: tuple[int, int], source: Path) -> Layout:
    data, (start, size) = parse(text.decode()), place
    entries = _ENTRIES | ({"grids"} if version == WITH_GRIDS else set())
    if canonical(data) != text or set(data) != entries or len(data["sha256"]) != 2 * _DIGEST:
        raise ValueError("it is not written as a header is")
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = {}
    streams: dict[str, tuple[int, int]] = {}
    for name, dtype, shape, length in data["tensors"]:
        _check_tensor(name, dtype, shape, length)
        if name in tensors:
            raise ValueError(f"tensor {name!r:.80} is there twice")
        tensors[name], streams[name] = (dtype, tuple(shape), ""), (start, length)
        start += length
    if start != size:
        raise FileError(f"{source} is truncated or damaged: its streams end at byte {start}, the file at {size}")
    aliases = dict(data["aliases"])
    if not all(isinstance(one, str) for one in (*aliases, *aliases.values())):
        raise ValueError("a tie is between things that are no names")
    grids, surgery = read_grids(data.get("grids"), source), Surgery.from_data(data["surgery"])
    header = Header(data["architecture"], surgery, aliases, tensors, data["proof"], grids)
    check_shown(header, source)
    return Layout(header, data["sha256"], streams)


def _check_tensor(name: object, dtype: object, shape: object, length: object) -> None:
    """Check that a tensor's size is bounded by its stream, before anything is allocated for it."""
    if not isinstance(name, str) or dtype not in DTYPES or type(length) is not int or length < 6:
        raise ValueError(f"tensor {name!r:.80} has no name, is of an unknown type or has no stream")
    if not isinstance(shape, list) or len(shape) > _DIMENSIONS or any(type(d) is not int or d < 0 for d in shape):
        raise ValueError(f"tensor {name!r:.80} has no shape")
    if math.prod(max(1, size) for size in shape) > 1 << 48 or math.prod(shape) > PER_BYTE * (length - 4):
        raise ValueError(f"tensor {name!r:.80} of shape {str(shape)[:80]} cannot be in {length} bytes")
