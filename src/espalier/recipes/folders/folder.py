"""The run folder: everything about a run in one place, consistent at every moment.

recipe.toml             the effective recipe, every default spelled out
run.json                what happened so far (status: running, finished, interrupted, failed)
checkpoints/            what ``espalier resume`` goes on from, while the run is not finished
plan.json               which units of the dense network each group keeps
dense.safetensors       the network before the first cut, where the run trained it
model.safetensors       the result
report.html             the report
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ... import __version__
from ...core import EspalierError, FileError, cause
from ...core.atomic import write_text
from ...core.run import Run

RECIPE, RUN, CHECKPOINTS = "recipe.toml", "run.json", "checkpoints"


class Journal:
    """Keeps a run up to date, in memory and in its folder; as a context manager it records how the run ended.

    Attributes:
        run: the run so far.
        folder: where it is written, or None.
        quiet: says when to write nothing: while what an earlier process did is looked up.
        silent: write nothing at all: another rank does.
    """

    def __init__(
        self, run: Run, folder: Path | None, quiet: Callable[[], bool] = lambda: False, *, silent: bool = False
    ) -> None:
        self.run = run if run.started else dataclasses.replace(run, started=now())
        self.folder, self.quiet, self.silent = folder, quiet, silent

    def __enter__(self) -> Self:
        """Write the run as it is now."""
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record the end: finished, interrupted, or failed with its reason."""
        notes = self.run.notes
        if error is None:
            status = "finished"
        elif isinstance(error, KeyboardInterrupt):
            status = "interrupted"
        else:
            status = "failed"
            notes += (str(error) if isinstance(error, EspalierError) else cause(error),)
        self.quiet = lambda: False
        try:
            self.update(status=status, finished=now(), notes=notes)
        except FileError:
            if error is None:
                raise  # else the first error is the one to tell: the disk is full, and the last run.json is whole

    def update(self, **changes: Any) -> None:
        """Change fields of the run and write it."""
        self.run = dataclasses.replace(self.run, **changes, files=self._files())
        if not self.quiet():
            self.write(RUN, self.run.to_json())

    def note(self, text: str) -> None:
        """Add a note for the user, once."""
        if text and text not in self.run.notes:
            self.update(notes=(*self.run.notes, text))

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all.

        Raises:
            FileError: it cannot be written.
        """
        if self.folder is not None and not self.silent:
            try:
                write_text(self.folder / name, text)
            except OSError as error:
                raise FileError(cannot_write(self.folder / name, error)) from error

    def _files(self) -> dict[str, int]:
        if self.folder is None or self.silent:
            return {}
        found = (path for path in sorted(self.folder.iterdir()) if not path.name.startswith(".") and path.is_file())
        return {path.name: path.stat().st_size for path in found if path.name not in (RUN, "report.html")}


def create_folder(folder: Path) -> None:
    """Create a run folder.

    Raises:
        FileError: it exists, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except FileExistsError as error:
        raise FileError(
            f"the run folder {folder} exists already, and a run never writes over another: "
            "give a new name, or remove that folder"
        ) from error
    except OSError as error:
        raise FileError(f"cannot create the run folder {folder}: {error.strerror}") from error


def cannot_write(path: Path, error: OSError) -> str:
    """Return the message for a file that could not be written."""
    return f"cannot write {path}: {error.strerror or error}; what was written before is whole"


def read_run(folder: str | Path) -> Run:
    """Read the run of a folder.

    Raises:
        FileError: there is no run in it, or it is damaged.
    """
    path = Path(folder)
    path = path if path.name == RUN else path / RUN
    try:
        return Run.from_json(path.read_text(encoding="utf-8"))
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def new_folder(root: str | Path, name: str, given: str | None = None) -> Path:
    """Return a path in ``root`` that does not exist: as given, or named after the run and the time.

    Raises:
        FileError: the given one exists, or is no name of a folder.
    """
    if given is not None:
        return _given(Path(root), given)
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    candidates = [f"{clean}-{stamp}", *(f"{clean}-{stamp}-{i}" for i in range(2, 1000))]
    return next(path for path in (Path(root) / name for name in candidates) if not path.exists())


def _given(root: Path, name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise FileError(f"a run folder cannot be named {name!r}: letters, digits, '_', '.' and '-' are for names")
    if (root / name).exists():
        raise FileError(f"{root / name} exists: give another name, or remove it")
    return root / name


def now() -> str:
    """Return the time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def environment(seed: int) -> dict[str, str]:
    """Return what a reader needs to repeat the run."""
    import torch  # `espalier report` reads a folder and needs none of it

    return {
        "espalier": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "seed": str(seed),
    }
