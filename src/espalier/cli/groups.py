"""Parts of ``Settings`` as groups of options: one definition, so Python and the command line cannot drift apart."""

from __future__ import annotations

from dataclasses import fields, make_dataclass
from typing import Annotated, Any

import tyro
from pydantic.fields import FieldInfo

from ..recipes import Settings

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
        [(name, _shown(field), field.default) for name, field in given],
        frozen=True,
        namespace={"__doc__": words},
    )


def joined(*parts: Any) -> Settings:
    """Return the settings that the parts hold together.

    Raises:
        ValidationError: a value is out of range.
    """
    return Settings(**{field.name: getattr(one, field.name) for one in parts for field in fields(one)})


def _shown(field: FieldInfo) -> Any:
    """Return the field's type, with what the help says of a value that may be missing; lists are options repeated."""
    words = field.description or ""
    if isinstance(field.default, tuple):
        return Annotated[field.annotation, tyro.conf.UseAppendAction, tyro.conf.arg(help=words)]
    if field.default is not None:
        return Annotated[field.annotation, tyro.conf.arg(help=words)]
    kind = str(field.annotation)
    metavar = next((name for part, name in _METAVARS if part in kind), "TEXT")
    return Annotated[field.annotation, tyro.conf.arg(help=words, metavar=metavar, help_behavior_hint="")]
