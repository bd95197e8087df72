"""Methods by name. The folder is the registry: a file ``pruning/some_paper.py`` has the class ``SomePaper``.

A folder is a family: what its methods do to a network, and so which steps take them. No two methods share a name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from ..core import UnknownNameError
from . import pruning, quantizing
from .protocol import Method, MethodError

# What ``pydantic.dataclasses.dataclass`` is given by every method: unknown names, infinities and NaN are refused.
HYPERPARAMETERS = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

Family = Literal["pruning", "quantizing"]
FAMILIES: dict[Family, ModuleType] = {"pruning": pruning, "quantizing": quantizing}


def names(family: Family = "pruning") -> list[str]:
    """Return the names of a family's methods; none of them is imported for it."""
    return sorted(found.name for found in pkgutil.iter_modules(FAMILIES[family].__path__))


def kind(name: str) -> type[Any]:
    """Return a method's class.

    Raises:
        UnknownNameError: no file has that name.
    """
    folders = {known: folder for family, folder in FAMILIES.items() for known in names(family)}
    if name not in folders:
        raise UnknownNameError("method", name, folders)
    module = importlib.import_module(f"{folders[name].__name__}.{name}")
    wanted = name.replace("_", "")
    own = (one for _, one in inspect.getmembers(module, inspect.isclass) if one.__module__ == module.__name__)
    return next(one for one in own if one.__name__.lower() == wanted)


def made(name: str, options: Mapping[str, Any]) -> Method:
    """Return a method with some of its hyperparameters given.

    Raises:
        UnknownNameError: no such method.
        MethodError: a hyperparameter is unknown or out of range; the message lists all mistakes.
    """
    method = kind(name)
    try:
        return method(**options)
    except ValidationError as error:
        known = [field.name for field in fields(method)]
        lines = [_line(dict(one), name, known) for one in error.errors(include_url=False)]
        raise MethodError("; ".join(lines)) from error


def _line(error: dict[str, Any], method: str, known: list[str]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = difflib.get_close_matches(where, known, n=1, cutoff=0.4)
        guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return f"{method} has no hyperparameter {where!r}; {guess}"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = "" if error["type"] == "value_error" else f" (it is {error.get('input')!r:.40})"
    return f"{where or method}: {message[:1].lower()}{message[1:]}{shown}"
