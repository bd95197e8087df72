"""The command line.

``main`` looks at the first word only; the command's options, tyro and torch are imported when they are needed, so
that ``espalier --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..engines import leave

COMMANDS = {
    "demo": "train, compress, save and measure a small network on real handwritten digits",
    "compress": "make a network smaller, fine-tune it and report: espalier compress MODEL --data SOURCE --macs 0.5",
    "run": "do what a recipe file says: espalier run recipe.toml",
    "resume": "go on with a run that was stopped: espalier resume RUN",
    "runs": "list the runs of a folder, or compare some: espalier runs [RUN ...]",
    "trace": "show what can be pruned in a network, what is frozen, and why: espalier trace MODEL",
    "study": "many runs from one file: does the heuristic matter? espalier study study.toml",
    "report": "write the report of a run folder again: espalier report RUN",
    "bench": "time a network before and after, on every backend that is installed: espalier bench RUN",
    "export": "write the result of a run in another format, checked: espalier export RUN --to onnx",
    "encode": "write a model file, or a run's, in the fewest bytes: espalier encode model.safetensors",
    "decode": "bring an encoded model file back, bit by bit: espalier decode model.esp --out model.safetensors",
    "inspect": "show what the bytes of a model file go to: espalier inspect model.esp",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 when it worked, 2 with one clear message when it could not, 130 after Ctrl-C.

    1 when nobody reads what it prints any more, as in ``espalier trace MODEL | head``.
    """
    try:
        code = _answer(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
        code = 1
    leave(code)


def _answer(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_help())
        return 0 if given else 2
    if given[0] == "--version":
        from .. import __version__

        print(__version__)
        return 0
    from .dispatch import run_command  # imports the options of all commands

    return run_command(given[0], given[1:])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: espalier COMMAND [options]",
            "",
            "Any PyTorch network in, a provably right smaller network out.",
            "",
            *lines,
            "",
            "espalier COMMAND --help shows the options of a command; espalier --version the version.",
        ]
    )
