"""What is wrong with the words of a command line, in one line."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Literal

import tyro

from ..core import EspalierError


class UsageError(EspalierError):
    """The words of a command line are not what the command takes."""


@dataclass(frozen=True)
class Option:
    """What a command takes in one place.

    Attributes:
        name: ``--macs``, or MODEL where its place says what it is.
        kind: of a value: bool (a flag), int, float or str.
        choices: all values there are; empty where there is no list.
        many: whether several words may follow.
        needed: whether it must be given.
    """

    name: str
    kind: type
    choices: tuple[str, ...]
    many: bool
    needed: bool

    @property
    def placed(self) -> bool:
        """Whether its place says what it is, and no name."""
        return not self.name.startswith("-")

    def refusals(self, values: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong with the words that were given for it."""
        if self.kind is bool:
            yield from (f"{self.name} takes no value" for _ in values)
        elif not values:
            yield f"{self.name} needs a value{self._wanted()}"
        for value in values:
            reason = self._refusal(value)
            if reason:
                yield f"{self.name} {value}: {reason}"

    def _wanted(self) -> str:
        if self.choices:
            return f": one of {', '.join(self.choices)}"
        return {int: ": a whole number", float: ": a number"}.get(self.kind, "")

    def _refusal(self, value: str) -> str:
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(value, self.choices, n=1)
            return f"did you mean {near[0]}?" if near else f"it is one of {', '.join(self.choices)}"
        if self.kind in (int, float):
            try:
                self.kind(value)
            except ValueError:
                return "not a whole number" if self.kind is int else "not a number"
        return ""


def mistake(command: str, kind: Any, words: Sequence[str], example: str) -> str:
    """Return what is wrong with the words that tyro refused: the first mistake, with the nearest valid option.

    Args:
        command: its name.
        kind: the dataclass of its options.
        words: after the command's name.
        example: a line that works.
    """
    options = list(options_of(kind))
    given: list[Option] = []
    wrong = next(_mistakes(command, options, list(words), given), "")
    if wrong:
        return wrong
    absent = [option.name for option in options if option.needed and option not in given]
    what = f"needs {' and '.join(absent)}" if absent else "does not take these words together"
    return f"{command} {what}; for example: {example}"


def options_of(kind: Any) -> Iterator[Option]:
    """Yield the options of a dataclass, those of its parts too."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from options_of(hints[field.name])
        else:
            yield _option(field, hints[field.name])


def flag(name: str) -> str:
    """Return a setting's name as the command line has it.

    >>> flag("latency_ms")
    '--latency-ms'
    """
    return f"--{name.replace('_', '-')}"


def _mistakes(command: str, options: list[Option], words: list[str], given: list[Option]) -> Iterator[str]:
    """Yield what is wrong with each word; ``given`` gathers the options that were met."""
    named = {option.name: option for option in options if not option.placed}
    places = [option for option in options if option.placed]
    while words:
        word = words.pop(0)
        name = word.partition("=")[0].replace("_", "-")
        name = name.replace("--no-", "--", 1) if name not in named else name
        if _is_name(word) and name not in named:
            yield _unknown(command, name, named)
        elif _is_name(word):
            given.append(named[name])
            yield from named[name].refusals(_values(named[name], word, words))
        elif places:
            given.append(places[0] if places[0].many else places.pop(0))
        else:
            takes = (
                " and ".join(option.name for option in options if option.placed) or "only options that begin with --"
            )
            yield f"{command} takes {takes}: {word!r} is one word too many"


def _values(option: Option, word: str, words: list[str]) -> list[str]:
    """Return an option's values; those that follow it are taken from ``words``."""
    _, equals, value = word.partition("=")
    values = [value] if equals else []
    while words and not equals and option.kind is not bool and not _is_name(words[0]) and (option.many or not values):
        values.append(words.pop(0))
    return values


def _is_name(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not word.lstrip("-.")[:1].isdigit()


def _unknown(command: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lstrip("-"), [one.lstrip("-") for one in known], n=1)
    guess = f"did you mean --{near[0]}?" if near else f"espalier {command} --help lists them"
    return f"{command} has no option {name}; {guess}"


def _option(field: Field[Any], hint: Any) -> Option:
    marks = list(getattr(hint, "__metadata__", ()))
    kinds = [one for one in _members(hint.__origin__ if marks else hint) if one is not type(None)]
    listed = typing.get_origin(kinds[0]) is tuple
    if listed:
        kinds = list(_members(typing.get_args(kinds[0])[0]))
    choices = tuple(str(one) for kind in kinds if typing.get_origin(kind) is Literal for one in typing.get_args(kind))
    number = next((kind for kind in (float, int, bool) if kind in kinds), str)
    metavar = next((found for mark in marks if (found := getattr(mark, "metavar", None))), field.name.upper())
    placed = any(mark is tyro.conf.Positional for mark in marks)
    many = listed and not any(mark is tyro.conf.UseAppendAction for mark in marks)  # else it is given several times
    needed = field.default is MISSING and field.default_factory is MISSING
    return Option(metavar if placed else flag(field.name), number, choices, many, needed)


def _members(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)
