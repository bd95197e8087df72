"""Studies in files: TOML, YAML or JSON, as recipes are. Every mistake is reported, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from ..core import EspalierError
from ..recipes.files import RecipeError, mistakes, plain_data
from .lottery.study import Lottery
from .study import Heuristics, Sensitivity, Study
from .triage.study import Triage

KINDS: dict[str, type[Study]] = {
    "heuristics": Heuristics,
    "triage": Triage,
    "sensitivity": Sensitivity,
    "lottery": Lottery,
}


class StudyError(EspalierError):
    """A study has mistakes, or some of its runs failed; the message lists them all."""


def read(path: str | Path) -> Study:
    """Read a study; one without a name is called as its file is.

    Raises:
        FileError: the file cannot be read, or is of no known kind.
        StudyError: what is in it is no study; the message says where and what, for every mistake.
    """
    source = Path(path)
    try:
        data = plain_data(source)
    except RecipeError as error:
        raise StudyError(str(error)) from error
    if isinstance(data, Mapping) and "name" not in data:
        data = {"name": source.stem, **data}
    return checked(data, str(source))


def checked(data: Any, where: str = "study") -> Study:
    """Return plain data as a study.

    Raises:
        StudyError: it is none.
    """
    kind = data.get("kind", "heuristics") if isinstance(data, Mapping) else "heuristics"
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.4)
        guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(KINDS)}"
        raise StudyError(f"{where}: unknown kind of study {kind!r}; {guess}")
    try:
        return KINDS[kind].model_validate(data)
    except ValidationError as error:
        raise StudyError("\n".join(f"{where}: {line}" for line in mistakes(error, KINDS[kind]))) from error


def to_toml(study: Study) -> str:
    """Return a study as TOML, with every default spelled out."""
    return tomli_w.dumps(study.model_dump(mode="json", exclude_none=True))
