"""What a Python file defines at its top level, read without running it."""

from __future__ import annotations

import ast
from pathlib import Path

from .errors import EspalierError, cause


def outline(path: Path, kind: type[EspalierError]) -> dict[str, list[str]]:
    """Return ``{name: its arguments}`` of the public functions and classes of a file, in its order.

    Raises:
        EspalierError: of that kind: the file cannot be read as Python.
    """
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, ValueError, SyntaxError, RecursionError) as error:
        raise kind(f"{path} cannot be read as Python: {cause(error)}") from error
    found: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            found[node.name] = _arguments(node)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = _arguments_of_class(node)
    return found


def _arguments(function: ast.FunctionDef) -> list[str]:
    given = function.args
    return [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def _arguments_of_class(node: ast.ClassDef) -> list[str]:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _arguments(part)[1:]
    return []
