"""What a command gives back: the same thing for a machine and for a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType

_PIPE_WIDTH = 100  # of tables in files and logs


@dataclass(frozen=True)
class Answer:
    """The outcome of a command.

    Attributes:
        data: what JSON can hold.
        shown: lines and tables for a person.
    """

    data: Any
    shown: tuple[RenderableType, ...]

    def print_json(self) -> None:
        """Print one JSON document."""
        print(json.dumps(self.data, indent=1))

    def print(self, logged: Sequence[str] = ()) -> None:
        """Print lines and tables.

        Args:
            logged: what was said on the way, which is not said again.
        """
        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
        for part in self.shown:
            if isinstance(part, str):
                if not any(line.endswith(part) for line in logged):
                    print(part)
            else:
                console.print(part, highlight=False)
