"""The table of stages: what every network on the way takes as an encoded file."""

from __future__ import annotations

from rich.table import Table

from ..core.run import Coded, Run


def stages_table(run: Run) -> Table:
    """Return one row a stage, as Deep Compression's tables have them."""
    table = Table(title="encoded files")
    table.add_column("stage", no_wrap=True)
    for head in ("weights left", "bits", "bytes", "smaller", f"validation {run.metric}"):
        table.add_column(head, justify="right")
    for row in run.coded:
        table.add_row(*_cells(row))
    return table


def _cells(row: Coded) -> tuple[str, ...]:
    bits = "" if row.bits is None else f"{row.bits:.1f}"
    score = "" if row.score is None else f"{100 * row.score:.2f} %"
    left = f"{100 * row.kept / max(row.weights, 1):.1f} %"
    return row.stage, left, bits, f"{row.bytes:,}", f"{row.dense_bytes / row.bytes:.1f} x", score
