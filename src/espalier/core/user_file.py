"""``path/to/file.py:function``: a function of the user's own, and one clear error for whatever goes wrong in it."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import EspalierError, UnknownNameError, cause
from .outline import Takes, outline

_NAME = re.compile(r"(?P<path>.+\.py)(?::(?P<function>.*))?")


def is_user_file(name: str) -> bool:
    """Say whether this names a Python file, with or without the function in it."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class UserFunction:
    """A function in a file, found and not yet imported.

    Attributes:
        name: as the user wrote it.
        path: of the file.
        function: its name there.
        error: the kind of every error that the file is to blame for.
    """

    name: str
    path: Path
    function: str
    error: type[EspalierError]

    @classmethod
    def parse(
        cls,
        name: str,
        error: type[EspalierError],
        gives: str,
        *,
        besides: Iterable[str] = (),
        offered: Iterable[str] = (),
    ) -> UserFunction:
        """Find the file and the name of the function; nothing is run.

        Args:
            name: ``path/to/file.py:function``.
            error: the kind of error to raise.
            gives: what the function returns, in words.
            besides: functions that give something else.
            offered: arguments that it will be given.

        Raises:
            EspalierError: there is no such file, or no function is named; the message lists those of the file that can
                be called with what is offered.
        """
        match = _NAME.fullmatch(name)
        assert match is not None, name
        path, function = Path(match["path"]).expanduser(), match["function"]
        if not path.is_file():
            raise error(f"{match['path']}: no such file")
        if function and function.isidentifier():
            return cls(name, path, function, error)
        found = {key: takes for key, takes in outline(path, error).items() if key not in besides}
        if not found:
            raise error(f"{path} defines no function: write one that returns the {gives}, then {path}:FUNCTION")
        ready = [f"{match['path']}:{key}" for key, takes in found.items() if set(takes.needed) <= set(offered)]
        if not ready:
            raise error(
                f"{name} does not say which function of the file gives the {gives}, and {', '.join(list(found)[:8])} "
                f"need arguments: write a function that returns the {gives} and needs none, then {path}:FUNCTION"
            )
        known = ", ".join(ready[:8]) + (", ..." if len(ready) > 8 else "")
        raise error(f"{name} does not say which function of the file gives the {gives}: say {known}")

    def arguments(self) -> tuple[str, ...]:
        """Return the names of what the function takes; nothing is run."""
        return outline(self.path, self.error).get(self.function, Takes()).arguments

    def load(self) -> Callable[..., Any]:
        """Import the file and return the function.

        Raises:
            UnknownNameError: the file has none of that name.
        """
        module = self.module()
        function = getattr(module, self.function, None)
        if not callable(function):
            known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise UnknownNameError("function", self.function, known, f"It was looked for in {module.__file__}.")
        return function

    def module(self) -> ModuleType:
        """Run the file afresh, as a script would: its folder is on the import path."""
        whole = self.path.resolve()
        spec = spec_from_file_location(f"espalier_user_{whole.stem}", whole)
        assert spec is not None and spec.loader is not None, whole
        module = module_from_spec(spec)
        if str(whole.parent) not in sys.path:
            sys.path.append(str(whole.parent))
        sys.modules[spec.name] = module  # dataclasses, deep copies and worker processes look their module up by name
        loader = spec.loader
        try:
            self.run(str(self.path), lambda: loader.exec_module(module), "does not import")
        except self.error:
            del sys.modules[spec.name]
            raise
        return module

    def call(self, options: Mapping[str, Any], offered: str) -> Any:
        """Import the file, call the function with ``options`` and return what it does.

        Args:
            options: keywords.
            offered: what a function may take, in words.

        Raises:
            EspalierError: it needs other arguments, failed, asked Python to exit, or returned nothing.
        """
        function = self.load()
        self._check(function, options, offered)
        made = self.run(self.name, lambda: function(**options))
        if made is None:
            raise self.error(f"{self.name} returned nothing")
        return made

    def run(self, what: str, function: Callable[[], Any], failed: str = "failed") -> Any:
        """Call the user's own code.

        Raises:
            EspalierError: it raised, or asked Python to exit; with the last line of their file that ran.
        """
        try:
            return function()
        except SystemExit as stop:
            raise self.error(
                f"{what} asks Python to exit (SystemExit: {stop.code}{self._where(stop)}): remove that, or put it "
                "under if __name__ == '__main__'"
            ) from stop
        except Exception as error:
            raise self.error(f"{what} {failed}: {cause(error)}{self._where(error)}") from error

    def _check(self, function: Callable[..., Any], options: Mapping[str, Any], offered: str) -> None:
        try:
            expected = signature(function)
        except (TypeError, ValueError):  # some callables that are not written in Python tell nothing
            return
        unknown = [name for name in options if name not in expected.parameters]
        if unknown:
            raise self.error(
                f"{self.name} takes no argument named {unknown[0]}; give it one, or leave {unknown[0]} out"
            )
        try:
            expected.bind(**options)
        except TypeError as error:
            raise self.error(
                f"{self.name} needs arguments ({error}), and is called with none but {offered} where it takes that: "
                "give them defaults, or write a function that calls it"
            ) from error

    def _where(self, error: BaseException) -> str:
        whole = str(self.path.resolve())
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == whole]
        return f" at line {lines[-1]}" if lines else ""
