"""The run folder: everything about a run in one place, consistent at every moment.

run.json                what was asked and what happened so far (status: running, finished, interrupted, failed)
plan.json               which units each group keeps; plan-1.json, plan-2.json, ... where there were several cuts
checkpoint.safetensors  the network after the last whole epoch, while the run goes on
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
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .. import __version__
from ..core import EspalierError, FileError, cause
from ..core.atomic import write_text
from ..core.run import Run


class Journal:
    """Keeps a run up to date, in memory and in its folder; as a context manager it records how the run ended.

    Attributes:
        run: the run so far.
        folder: where it is written, or None.
    """

    def __init__(self, run: Run, folder: Path | None) -> None:
        self.run = dataclasses.replace(run, started=now())
        self.folder = folder

    def __enter__(self) -> Self:
        """Create the folder and write the first ``run.json``."""
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=False)
            except FileExistsError as error:
                raise FileError(
                    f"the run folder {self.folder} exists already, and a run never writes over another: "
                    "give a new name, or remove that folder"
                ) from error
            except OSError as error:
                raise FileError(f"cannot create the run folder {self.folder}: {error.strerror}") from error
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
        self.update(status=status, finished=now(), notes=notes)

    def update(self, **changes: Any) -> None:
        """Change fields of the run and write it."""
        self.run = dataclasses.replace(self.run, **changes, files=self._files())
        self.write("run.json", self.run.to_json())

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all."""
        if self.folder is not None:
            write_text(self.folder / name, text)

    def remove(self, name: str) -> None:
        """Remove a file of the folder, if it is there."""
        if self.folder is not None:
            (self.folder / name).unlink(missing_ok=True)

    def _files(self) -> dict[str, int]:
        if self.folder is None:
            return {}
        whole = (path for path in sorted(self.folder.iterdir()) if not path.name.startswith("."))
        return {path.name: path.stat().st_size for path in whole if path.name not in ("run.json", "report.html")}


def read_run(folder: str | Path) -> Run:
    """Read the run of a folder.

    Raises:
        FileError: there is no run in it, or it is damaged.
    """
    path = Path(folder)
    path = path if path.name == "run.json" else path / "run.json"
    try:
        return Run.from_json(path.read_text(encoding="utf-8"))
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def new_folder(root: str | Path, name: str) -> Path:
    """Return a path in ``root`` that does not exist, named after the run and the time."""
    clean = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    candidates = [f"{clean}-{stamp}", *(f"{clean}-{stamp}-{i}" for i in range(2, 1000))]
    return next(path for path in (Path(root) / name for name in candidates) if not path.exists())


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
