"""What a model file spends its bytes on: `.esp` or safetensors."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..core import FileError
from ..graph.kinds import check_path
from .bits import Malformed
from .container import MAGIC, Layout, read_layout
from .tensors import DTYPES, describe


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: the tensor's.
        dtype: its type, as torch calls it.
        shape: its sizes.
        kind: how its numbers are written: raw, planes, sparse, codebook, uniform.
        coder: of its first symbols; "" where it has none.
        bytes: what it takes in the file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: str
    coder: str
    bytes: int

    @property
    def elements(self) -> int:
        """Return how many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def bits(self) -> float:
        """Return the bits in the file for each number."""
        return 8 * self.bytes / max(1, self.elements)


@dataclass(frozen=True)
class Report:
    """One file.

    Attributes:
        path: the file.
        bytes: its size, as the file system has it.
        architecture: the name of the architecture, or "".
        tensors: in the file's order.
    """

    path: Path
    bytes: int
    architecture: str
    tensors: tuple[Entry, ...]

    @property
    def header_bytes(self) -> int:
        """Return what is not tensors."""
        return self.bytes - sum(one.bytes for one in self.tensors)

    @property
    def original_bytes(self) -> int:
        """Return what the tensors take as they are in memory."""
        sizes = (one.elements * DTYPES[one.dtype].itemsize for one in self.tensors if one.dtype in DTYPES)
        return sum(sizes)

    @property
    def ratio(self) -> float:
        """Return how many times smaller the file is than its tensors in memory."""
        return self.original_bytes / self.bytes


def inspect(path: str | Path) -> Report:
    """Return what a file's bytes go to; no tensor is decoded.

    Args:
        path: ``.esp``, or safetensors of anybody's.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign.
    """
    check_path("inspect", path)
    source = Path(path)
    try:
        with open(source, "rb") as file:
            ours = file.read(len(MAGIC)) == MAGIC
        return report(source, read_layout(source)) if ours or source.suffix == ".esp" else _of_safetensors(source)
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from error


def report(source: Path, layout: Layout) -> Report:
    """Return what the bytes of an ``.esp`` file go to."""
    entries = []
    with open(source, "rb") as file:
        for name, (start, size) in layout.streams.items():
            dtype, shape, _ = layout.header.tensors[name]
            file.seek(start)
            try:
                kind, coder = describe(file.read(min(size, 32)))
            except Malformed as error:
                raise FileError(f"{source} is damaged: tensor {name!r}: {error}") from error
            entries.append(Entry(name, dtype, shape, kind, coder, size))
        return Report(source, os.fstat(file.fileno()).st_size, layout.header.architecture, tuple(entries))


def _of_safetensors(source: Path) -> Report:
    names = {kind: name for name, kind in _SAFETENSORS.items()}
    try:
        with safe_open(source, framework="pt") as file:  # checks the header that is read again below
            metadata = file.metadata() or {}
        with open(source, "rb") as file:
            header: Mapping = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            size = os.fstat(file.fileno()).st_size
    except (SafetensorError, ValueError) as error:
        raise FileError(f"{source} is truncated, damaged or neither .esp nor safetensors: {error}") from error
    entries = []
    for name, one in sorted(header.items()):
        if name != "__metadata__":
            first, last = one["data_offsets"]
            shape, kind = tuple(one["shape"]), names.get(one["dtype"]) or str(one["dtype"])
            entries.append(Entry(_shown(name), kind, shape, "raw", "", last - first))
    return Report(source, size, _shown(metadata.get("architecture", "")), tuple(entries))


def _shown(text: str) -> str:
    """Return a name of anybody's with what a terminal would obey made visible."""
    return text if text.isprintable() else repr(text)


_SAFETENSORS = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint64": "U64",
    "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip
