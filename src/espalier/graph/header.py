"""What a model file says about itself: its metadata, checked against its own hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError, safe_open
from torch import nn

from ..core import NOT_PROVED, PROOFS, FileError, GridError, Surgery
from .carried_grids import Grids, grids_of
from .recording.tensors import aliases

VERSION, WITH_GRIDS = 1, 2  # what an older Espalier cannot read has a new version: it would leave the grids out
_ENTRIES = ("espalier", "architecture", "surgery", "aliases", "tensors")
_PROOF = "proof"  # files of before it was written down do not have it
_GRIDS = "grids"  # files of models that carry none do not have it
_LATER = (_PROOF, _GRIDS)


@dataclass(frozen=True)
class Header:
    """What a model file says about itself.

    Attributes:
        architecture: the name that ``es.model`` builds, or "" for the user's own class.
        surgery: from the original architecture to this model.
        aliases: ``{tied name: stored name}``.
        tensors: ``{name: (dtype, shape, SHA-256 of its bytes)}``.
        proof: what was proved about the last cut when the file was written, as ``espalier_proof`` has it.
        grids: which weights lie on a grid, and which inputs are put on one.
    """

    architecture: str
    surgery: Surgery
    aliases: Mapping[str, str]
    tensors: Mapping[str, tuple[str, tuple[int, ...], str]]
    proof: str = NOT_PROVED
    grids: Grids = field(default_factory=Grids)


def sort_metadata(path: str | Path) -> None:
    """Put a file's metadata in the order of their names: the library's own order is another one every time."""
    with open(path, "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # as they were written: the same characters, and spaces up to a round number
            file.seek(8)
            file.write(text.ljust(size))


def read_header(path: str | Path) -> Header:
    """Return what the file says about itself, checked against its own hashes; no tensor is read.

    Raises:
        FileError: the file is missing, truncated, damaged or foreign.
    """
    source = Path(path)
    entries = _read_metadata(source)
    if "espalier" not in entries:
        raise FileError(
            f"{source} is a safetensors file, but not one that Espalier wrote: it names no format version. "
            "es.model(name, weights=FILE) reads weights that others saved"
        )
    if entries["espalier"] != str(WITH_GRIDS if _GRIDS in entries else VERSION):
        raise FileError(
            f"{source} has format version {entries['espalier']!r:.20}; this Espalier reads version {VERSION}, and "
            f"{WITH_GRIDS} of quantized models"
        )
    try:
        hashes = parse(entries["sha256"])
        named = [*_ENTRIES, *(name for name in _LATER if name in hashes)]
        wrong = any(hashes[name] != sha256(entries[name].encode()) for name in named)
        if wrong or {*_LATER} & ({*entries} - {*named}):
            raise FileError(f"{source} is damaged: its metadata does not match its SHA-256")
        surgery = Surgery.from_data(parse(entries["surgery"]))
        aliases = {str(k): str(v) for k, v in parse(entries["aliases"]).items()}
        tensors = {
            str(n): (str(d), tuple(int(i) for i in shape), str(digest))
            for n, (d, shape, digest) in parse(entries["tensors"]).items()
        }
        grids = read_grids(parse(entries.get(_GRIDS, "null")), source)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise FileError(f"{source} is damaged or foreign: its metadata cannot be read ({error!r:.120})") from error
    header = Header(entries["architecture"], surgery, aliases, tensors, entries.get(_PROOF, NOT_PROVED), grids)
    check_shown(header, source)
    return header


def read_grids(data: Any, source: Path) -> Grids:
    """Return the grids that a header speaks of; none of None.

    Raises:
        FileError: it says something that no grid is.
    """
    try:
        return Grids() if data is None else Grids.from_data(data)
    except GridError as error:
        raise FileError(f"{source} is damaged or foreign: {error}") from error


def is_ours(path: str | Path) -> bool:
    """Return whether a file is safetensors that Espalier wrote, of whatever version."""
    try:
        return "espalier" in _read_metadata(Path(path))
    except FileError:
        return False


def check_shown(header: Header, source: Path) -> None:
    """Refuse a header that says what no header says: it is shown, in terminals too, and its surgery is carried out."""
    check_names(header.surgery, source)
    if header.proof not in (*PROOFS, NOT_PROVED):
        known = ", ".join(PROOFS)
        raise FileError(f"{source} is damaged or foreign: its proof is {header.proof!r:.20}, and none of {known}")
    if not isinstance(header.architecture, str) or not header.architecture.isprintable():
        raise FileError(f"{source} is damaged: the name of its architecture holds characters that cannot be shown")
    names = (*header.tensors, *header.grids.inputs, *header.grids.weights)
    unprintable = next((name for name in names if not name.isprintable()), None)
    if unprintable is not None:
        raise FileError(f"{source} is damaged: {unprintable!r:.80} is a name that cannot be shown")


def header_of(
    model: nn.Module, surgery: Surgery, tensors: Mapping[str, tuple[str, tuple[int, ...], str]], proof: str = ""
) -> Header:
    """Return what a file of ``model`` says about itself.

    Args:
        model: gives the architecture's name and the ties.
        surgery: from the original architecture to what is saved.
        tensors: ``{name: (dtype, shape, SHA-256 of its bytes)}`` of what is saved.
        proof: what was proved; the model's own word when empty.
    """
    word = proof or getattr(model, "espalier_proof", NOT_PROVED)
    return Header(
        architecture=str(getattr(model, "espalier_source", "") or ""),
        surgery=surgery,
        aliases={other: first for other, first in aliases(model).items() if first in tensors},
        tensors=tensors,
        proof=word if word in PROOFS else NOT_PROVED,
        grids=grids_of(model),
    )


def metadata(header: Header) -> dict[str, str]:
    """Return a header as the entries of a safetensors file."""
    entries = {
        "espalier": str(WITH_GRIDS if header.grids else VERSION),
        "architecture": header.architecture,
        "surgery": json.dumps(header.surgery.to_data()),
        "aliases": json.dumps(dict(header.aliases)),
        "proof": header.proof,
        "tensors": json.dumps(
            {n: [dtype, list(shape), digest] for n, (dtype, shape, digest) in header.tensors.items()}
        ),
    }
    if header.grids:
        entries[_GRIDS] = json.dumps(header.grids.to_data())
    entries["sha256"] = json.dumps({name: sha256(text.encode()) for name, text in entries.items()})
    return entries


def _read_metadata(source: Path) -> dict[str, str]:
    try:
        size = os.stat(source).st_size
        with open(source, "rb") as file:
            announced = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from error
    if size < 8 or announced > size - 8:
        raise FileError(f"{source} is truncated or not a safetensors file: its header would be longer than the file")
    try:
        with safe_open(source, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{source} is truncated, damaged or not a safetensors file: {error}") from error


def check_names(surgery: Surgery, source: Path) -> None:
    """Refuse a surgery that sets a private attribute: no file may reach into a module's machinery."""
    for change in surgery.attributes.values():
        private = [step for step in change.path if isinstance(step, str) and step.startswith("_")]
        if private:
            raise FileError(f"{source}: the surgery sets the private attribute {private[0]!r}, which a file may not do")


def sha256(data: Any) -> str:
    """Return the hash of bytes, or of an array's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def parse(text: str) -> Any:
    """Return what JSON says; NaN and the infinities are not JSON."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number that a model file may hold")

    return json.loads(text, parse_constant=refuse)
