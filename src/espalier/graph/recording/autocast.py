"""Autocast, left out: what is recorded and what is proved computes in the precision of its own tensors.

Autocast does nothing on meta tensors, and nothing in float64: a record and a proof would each see another part of it
and compare bfloat16 with float32. A proof is about structure; casts that the model writes itself (``.half()``) stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from .record import Record
from .source_lines import source_line


@contextmanager
def without_autocast(seen: list[str] | None = None) -> Iterator[None]:
    """Let every ``torch.autocast`` do nothing; ``seen`` gets where one was entered, "" for one around it all."""
    seen = [] if seen is None else seen

    def enter(self: Any) -> Any:
        if self._enabled:
            seen.append(source_line() or "a decorator")
        return self

    with ExitStack() as stack:
        for kind in _kinds():
            if torch.is_autocast_enabled(kind):
                seen.append("")
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(patch.object(torch.autocast, "__enter__", enter))
        stack.enter_context(patch.object(torch.autocast, "__exit__", lambda *_: None))
        yield


def autocast_note(records: Iterable[Record]) -> Iterator[str]:
    """Yield what the user should know about regions that were entered."""
    lines = dict.fromkeys(Path(line).name for record in records for line in record.autocast if line)
    if lines:
        yield (
            f"torch.autocast at {', '.join(lines)} is left out of what is recorded and proved, which computes in the "
            "precision of the weights: a proof is about structure, and the cut model enters it as before"
        )


def _kinds() -> list[str]:
    """Return the kinds of device here that autocast knows."""
    accelerator = torch.accelerator.current_accelerator()
    return ["cpu", *([accelerator.type] if accelerator is not None else [])]
