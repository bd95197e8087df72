"""Parts of ``Settings`` as groups of options: one definition, so Python and the command line cannot drift apart."""

from __future__ import annotations

import re
from dataclasses import fields, make_dataclass
from typing import Annotated, Any

import tyro
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ..recipes import Settings
from ..recipes.files import mistakes
from .usage import UsageError, flag

_METAVARS = (("int | float", "NUMBER"), ("float", "NUMBER"), ("int", "N"))


def part(title: str, words: str, names: tuple[str, ...]) -> type:
    """Return a dataclass with some of the fields of ``Settings``; it checks nothing, ``joined`` does.

    Args:
        title: of the class.
        words: above its options in the help.
        names: of the fields.
    """
    given = [(name, Settings.model_fields[name]) for name in names]
    return make_dataclass(
        title,
        [(name, _shown(field), () if isinstance(field.default, tuple) else field.default) for name, field in given],
        frozen=True,
        namespace={"__doc__": words},
    )


def joined(*parts: Any) -> Settings:
    """Return the settings that the parts hold together.

    Raises:
        UsageError: a value is out of range.
    """
    given = {field.name: getattr(one, field.name) for one in parts for field in fields(one)}
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value != ()})
    except ValidationError as error:
        raise refusal(error) from error


def checked(chosen: Any) -> Any:
    """Return a command's options, every value checked against its field.

    Raises:
        UsageError: some are out of range; all are named.
    """
    given = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    try:
        return TypeAdapter(type(chosen)).validate_python(given)
    except ValidationError as error:
        raise refusal(error) from error


def refusal(error: ValidationError) -> UsageError:
    """Return all of pydantic's mistakes as one of the command line, by the options' names."""
    return UsageError("; ".join(re.sub(r"^\w+", lambda name: flag(name[0]), m) for m in mistakes(error)))


def _shown(field: FieldInfo) -> Any:
    """Return the field's type, with what the help says of a value that may be missing; lists are options repeated."""
    words = " ".join((field.description or "").split())
    if isinstance(field.default, tuple):
        often = f"(default: {', '.join(field.default)}; may be repeated)" if field.default else "(may be repeated)"
        shown = tyro.conf.arg(help=words, help_behavior_hint=often)
        return Annotated[field.annotation, tyro.conf.UseAppendAction, shown]
    if field.default is not None:
        return Annotated[field.annotation, tyro.conf.arg(help=words)]
    kind = str(field.annotation)
    metavar = next((name for part, name in _METAVARS if part in kind), "TEXT")
    return Annotated[field.annotation, tyro.conf.arg(help=words, metavar=metavar, help_behavior_hint="")]
