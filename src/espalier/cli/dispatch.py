"""From the words of a command line to a command, and from its errors to an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import tyro
from pydantic import ValidationError

from ..core import EspalierError, ModelError, UnknownNameError
from ..engines import leads
from ..recipes.files import mistakes
from . import COMMANDS, options
from .answer import Answer
from .groups import checked
from .usage import UsageError, mistake


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run the command and return the exit code: 0, 2 after an error of the user's world, 130 after Ctrl-C."""
    try:
        if name not in COMMANDS:
            raise UnknownNameError("command", name, COMMANDS, "espalier --help lists them all.")
        chosen = _chosen(name, arguments)
        with _logged() as logged:
            answer = _obey(name, chosen)
        if leads() and chosen.json:
            answer.print_json()
        elif leads():
            answer.print(logged)
    except ValidationError as error:
        print(f"espalier: error: {'; '.join(mistakes(error))}", file=sys.stderr)
        return 2
    except EspalierError as error:
        print(f"espalier: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("espalier: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        sys.stderr.close()
        return 0
    return 0


def _chosen(name: str, arguments: Sequence[str]) -> Any:
    """Read the options; help ends with examples.

    Raises:
        UsageError: the command does not take these words, or not these values.
    """
    helps = not {"-h", "--help"}.isdisjoint(arguments)
    kind = tyro.conf.OmitArgPrefixes[_OPTIONS[name]]
    try:
        with nullcontext() if helps else redirect_stderr(StringIO()):  # its own words on a mistake fill a screen
            chosen = tyro.cli(kind, prog=f"espalier {name}", args=list(arguments))
    except SystemExit as stop:
        if not stop.code:
            print("\n".join(["examples:", *(f"  {line}" for line in options.EXAMPLES[name])]) if helps else "")
            raise
        raise UsageError(mistake(name, _OPTIONS[name], arguments, options.EXAMPLES[name][0])) from stop
    return checked(chosen)


def _obey(name: str, chosen: Any) -> Answer:
    """Do what was chosen; a model's own code that exits has not done it, and what it prints is no answer."""
    try:
        if not chosen.json:
            return _verb(name)(chosen)
        with redirect_stdout(sys.stderr):
            return _verb(name)(chosen)
    except SystemExit as stop:
        raise ModelError(
            f"the model's own code asked Python to exit (SystemExit: {stop.code}) during {name}: remove that"
        ) from stop


class _Handler(logging.StreamHandler):
    """Writes messages to stderr, and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        super().emit(record)


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Show on stderr what the package logs: warnings, and the progress of long work where no bar can be drawn."""
    log, handler = logging.getLogger("espalier"), _Handler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield handler.said
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


_OPTIONS: dict[str, Any] = {
    "demo": options.Demo,
    "compress": options.Compress,
    "run": options.Run,
    "resume": options.Resume,
    "runs": options.Runs,
    "study": options.Study,
    "trace": options.Trace,
    "report": options.Report,
    "bench": options.Bench,
    "export": options.Export,
    "encode": options.Encode,
    "decode": options.Decode,
    "inspect": options.Inspect,
}

# the others live in a module of their name
_HOMES = {
    "demo": "compress", "run": "compress", "resume": "compress",
    "encode": "coding", "decode": "coding", "inspect": "coding",
}  # fmt: skip


def _verb(name: str) -> Callable[[Any], Answer]:
    """Import the command's code, and torch with it, only now that its options are right."""
    return getattr(import_module(f"espalier.cli.{_HOMES.get(name, name)}"), name)
