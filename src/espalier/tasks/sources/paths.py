"""Files on disk by number, as what is decoded later takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...core import FileError


@dataclass(frozen=True)
class Files:
    """The files of one split."""

    paths: tuple[str, ...]

    def content(self, row: int) -> bytes:
        """Return the bytes of one.

        Raises:
            FileError: it cannot be read.
        """
        try:
            return Path(self.paths[row]).read_bytes()
        except OSError as error:
            raise FileError(f"{self.paths[row]} cannot be read: {error.strerror}") from error

    def place(self, row: int) -> str:
        """Return the path of one."""
        return self.paths[row]
