"""Recipes in files: TOML, YAML or JSON, by the name's ending. Every mistake is reported, all at once.

[[steps]]
kind = "prune"
macs = 0.5
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
import yaml
from pydantic import BaseModel, ValidationError

from ..core import FileError
from ..core.atomic import write_text
from .recipe import Recipe
from .steps import STEPS
from .steps.base import RecipeError


def read(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        FileError: the file cannot be read, or its name ends on none of .toml, .yaml, .yml, .json.
        RecipeError: what is in it is no recipe; the message says where and what, for every mistake.
    """
    return checked(plain_data(path), str(path))


def plain_data(path: str | Path) -> Any:
    """Return what is in a TOML, YAML or JSON file.

    Raises:
        FileError: the file cannot be read, or its name ends on none of .toml, .yaml, .yml, .json.
        RecipeError: it is not in the notation that its name says.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    return _parsed(text, source.suffix, str(source))


def parse(text: str, suffix: str = ".toml", where: str = "recipe") -> Recipe:
    """Read a recipe from text; ``suffix`` says which notation, ``where`` begins the messages.

    Raises:
        FileError, RecipeError: as ``read``.
    """
    return checked(_parsed(text, suffix, where), where)


def _parsed(text: str, suffix: str, where: str) -> Any:
    if suffix not in _READERS:
        raise FileError(f"{where}: a recipe is a {', '.join(_READERS)} file, not {suffix or 'one without an ending'}")
    try:
        return _READERS[suffix](text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{where}: {' '.join(str(error).split())}") from error


def checked(data: Any, where: str = "recipe") -> Recipe:
    """Return plain data as a recipe.

    Raises:
        RecipeError: it is none.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {line}" for line in mistakes(error))) from error


def write(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe in the notation of the name's ending, with every default spelled out.

    Raises:
        FileError: another ending.
    """
    target = Path(path)
    if target.suffix not in _WRITERS:
        raise FileError(f"{target}: a recipe is a {', '.join(_WRITERS)} file")
    write_text(target, _WRITERS[target.suffix](to_data(recipe)))


def to_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML, with every default spelled out."""
    return tomli_w.dumps(to_data(recipe))


def to_data(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as plain data, single settings first and steps last; what is None is left out."""
    data = recipe.model_dump(mode="json", exclude_none=True)
    return {**{key: value for key, value in data.items() if key != "steps"}, "steps": data["steps"]}


def schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, for editors that complete and check them."""
    return Recipe.model_json_schema()


def mistakes(error: ValidationError, root: type[BaseModel] = Recipe) -> list[str]:
    """Return one line a mistake: where it is, what it is, and the nearest valid key of what ``root`` is made of."""
    found = [dict(one) for one in error.errors(include_url=False)]
    return list(dict.fromkeys(_line(one, root) for one in found if not _follows(one, found)))


def _follows(error: dict[str, Any], errors: Sequence[dict[str, Any]]) -> bool:
    """Say whether a list is said to be too short only because an item of it is a mistake."""
    place = error["loc"]
    inside = (one for one in errors if len(one["loc"]) > len(place) and one["loc"][: len(place)] == place)
    return error["type"] == "too_short" and any(inside)


def _line(error: dict[str, Any], root: type[BaseModel]) -> str:
    loc = list(error["loc"])
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _keys(loc[:-1], root)
        near = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        return f"{_place(loc[:-1])}unknown key {loc[-1]!r}{guess}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        name = value.get("kind", "") if isinstance(value, Mapping) else value
        near = difflib.get_close_matches(str(name), STEPS, n=1, cutoff=0.4)
        guess = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(STEPS)}"
        return f"{_place(loc)}unknown kind of step {name!r}{guess}"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = f" (it is {value!r:.40})" if kind not in ("missing", "value_error") else ""
    return f"{_place(loc)}{message}{shown}"


def _place(loc: Sequence[str | int]) -> str:
    """Return where a mistake is, in words: ``step 2 (prune): rounds: ``."""
    parts: list[str] = []
    names: list[str] = []
    rest = list(loc)
    while rest:
        name = rest.pop(0)
        if rest and isinstance(rest[0], int):
            number, kind = int(rest.pop(0)) + 1, ""
            if name == "steps" and rest:
                kind = f" ({rest.pop(0)})"
            parts.append(f"{str(name).removesuffix('s')} {number}{kind}")
        elif name not in ("int", "float", "str", "function-after"):
            names.append(str(name))
    return ": ".join([*parts, *([".".join(names)] if names else [])]) + (": " if parts or names else "")


def _keys(loc: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    """Return the keys that are known at a place."""
    here = root
    for part in loc:
        if part in STEPS:
            here = STEPS[str(part)]
        elif isinstance(part, str) and part in here.model_fields and part != "steps":
            here = _inner(here.model_fields[part].annotation) or here
    return list(here.model_fields)


def _inner(annotation: Any) -> type[BaseModel] | None:
    """Return the model among the types of an optional field."""
    choices = getattr(annotation, "__args__", (annotation,))
    return next((one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)), None)


_READERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".json": json.loads,
}


def _yaml(data: dict[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    ".toml": tomli_w.dumps,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": lambda data: json.dumps(data, indent=1),
}
