"""``espalier encode``, ``decode`` and ``inspect``: model files in few bytes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from .. import coding
from ..coding import Entry, Report
from ..graph import files
from ..graph.header import is_ours
from ..recipes import read
from ..recipes.folders.folder import RECIPE
from ..recipes.folders.located import located
from ..zoo.checkpoints import read_tensors
from .answer import Answer
from .options import Decode, Encode, Inspect
from .saved import saved


def encode(chosen: Encode) -> Answer:
    """Write the encoded file, and say how small it is."""
    given = Path(chosen.model)
    if not given.is_file():
        folder = located(given)
        given = saved(folder, read(folder / RECIPE))
    held = files.read(given) if is_ours(given) else read_tensors(given)
    target = Path(chosen.out) if chosen.out else given.with_suffix(".esp")
    report = coding.encode(held, target, tensors=coding.discover(held), threads=chosen.threads)
    return Answer(to_data(report), (str(target), in_words(report)))


def decode(chosen: Decode) -> Answer:
    """Write the decoded file."""
    target = Path(chosen.out)
    held = coding.decoded(chosen.model, threads=chosen.threads)
    files.write(held, target)
    size = target.stat().st_size
    data = {"file": str(target), "bytes": size, "tensors": len(held.tensors)}
    return Answer(data, (str(target), f"{len(held.tensors)} tensors, {size:,} bytes, each equal to its SHA-256"))


def inspect(chosen: Inspect) -> Answer:
    """Show one row a tensor."""
    report = coding.inspect(chosen.model)
    return Answer(to_data(report), (tensors_table(report), in_words(report)))


def to_data(report: Report) -> dict[str, Any]:
    """Return a report as JSON-ready data."""
    return {
        "file": str(report.path),
        "bytes": report.bytes,
        "header_bytes": report.header_bytes,
        "original_bytes": report.original_bytes,
        "ratio": report.ratio,
        "architecture": report.architecture,
        "tensors": [asdict(one) | {"elements": one.elements, "bits": one.bits} for one in report.tensors],
    }


def in_words(report: Report) -> str:
    """Return a report's sum in one line."""
    tensors = f"{len(report.tensors)} tensors of {report.original_bytes:,} bytes"
    return (
        f"{report.bytes:,} bytes ({report.header_bytes:,} of them header) for {tensors}: {report.ratio:.2f} x smaller"
    )


def tensors_table(report: Report) -> Table:
    """Return one row a tensor: how it is written, and what it takes."""
    table = Table()
    table.add_column("tensor", overflow="fold", ratio=1)
    for head in ("type", "kind", "coder"):
        table.add_column(head, no_wrap=True)
    for head in ("elements", "bits each", "bytes", "share"):
        table.add_column(head, justify="right", no_wrap=True)
    for one in report.tensors:
        table.add_row(*_cells(one, report.bytes))
    return table


def _cells(one: Entry, whole: int) -> tuple[str, ...]:
    numbers = (f"{one.elements:,}", f"{one.bits:.2f}", f"{one.bytes:,}", f"{100 * one.bytes / whole:.1f} %")
    return (escape(one.name), escape(one.dtype), one.kind, one.coder, *numbers)
