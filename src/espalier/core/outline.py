"""What a Python file defines at its top level, read without running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from .errors import EspalierError, cause


@dataclass(frozen=True)
class Takes:
    """What a function or class takes: the names of its arguments, and those that have no default."""

    arguments: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()


def outline(path: Path, kind: type[EspalierError]) -> dict[str, Takes]:
    """Return the public functions and classes of a file by name, in its order.

    Raises:
        EspalierError: of that kind: the file cannot be read as Python.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        raise kind(f"{path} cannot be read as Python: {cause(error)}") from error
    found: dict[str, Takes] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found[node.name] = _of_function(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = _of_class(node)
    return found


def _of_function(function: ast.FunctionDef) -> Takes:
    given = function.args
    placed = [*given.posonlyargs, *given.args]
    needed = placed[: len(placed) - len(given.defaults)]
    needed += [one for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return Takes(tuple(one.arg for one in (*placed, *given.kwonlyargs)), tuple(one.arg for one in needed))


def _of_class(node: ast.ClassDef) -> Takes:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            takes = _of_function(part)
            return Takes(takes.arguments[1:], takes.needed[1:])
    return Takes()
