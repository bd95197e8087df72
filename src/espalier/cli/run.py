"""From the words of a command line to a command, and from its errors to an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from pydantic import ValidationError

from ..core import EspalierError, ModelError, UnknownNameError
from ..recipes.files import mistakes
from . import COMMANDS, options


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run the command and return the exit code: 0, 2 after an error of the user's world, 130 after Ctrl-C."""
    try:
        if name not in COMMANDS:
            raise UnknownNameError("command", name, COMMANDS, "espalier --help lists them all.")
        chosen = tyro.cli(_OPTIONS[name], prog=f"espalier {name}", args=list(arguments))
        _obey(name, chosen)
    except ValidationError as error:
        print("espalier: " + "\n".join(mistakes(error)), file=sys.stderr)
        return 2
    except EspalierError as error:
        print(f"espalier: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("espalier: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 0
    return 0


def _obey(name: str, chosen: Any) -> None:
    """Do what was chosen; a model's own code that exits has not done it."""
    try:
        _verb(name)(chosen)
    except SystemExit as stop:
        raise ModelError(
            f"the model's own code asked Python to exit (SystemExit: {stop.code}) during {name}: remove that"
        ) from stop


_OPTIONS: dict[str, Any] = {
    "demo": options.Demo,
    "compress": options.Compress,
    "run": options.Run,
    "resume": options.Resume,
    "runs": options.Runs,
    "trace": options.Trace,
    "report": options.Report,
}


def _verb(name: str) -> Callable[[Any], None]:
    """Import the command's code, and torch with it, only now that its options are right."""
    if name == "trace":
        from .trace import trace

        return trace
    if name == "report":
        from .report import report

        return report
    if name == "runs":
        from .runs import runs

        return runs
    from . import compress

    return getattr(compress, name)
