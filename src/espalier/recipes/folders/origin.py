"""Whether this machine's user wrote a run folder: a resumed run may import a file that its recipe names.

    seal = HMAC-SHA256(key of this user, recipe.toml)

The key lies in the user's state folder and never leaves it; a folder from elsewhere has no seal, or a wrong one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ...core.atomic import write_text
from .folder import RECIPE

_SEAL = ".seal"


def seal(folder: Path) -> None:
    """Mark a run folder as written here; where there is no place for a key, it stays unmarked."""
    key = _key()
    if key:
        write_text(folder / _SEAL, _sum(key, folder))


def is_ours(folder: Path) -> bool:
    """Say whether the folder's recipe is the one that was sealed here."""
    key = _key()
    try:
        given = (folder / _SEAL).read_text(encoding="utf-8")
        return bool(key) and hmac.compare_digest(given, _sum(key, folder))
    except (OSError, UnicodeDecodeError, TypeError):
        return False


def _sum(key: bytes, folder: Path) -> str:
    return hmac.new(key, (folder / RECIPE).read_bytes(), hashlib.sha256).hexdigest()


def _key() -> bytes:
    """Return this user's key, made on first use; nothing where it cannot be kept."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(home).expanduser() / "espalier" / "run-folders.key"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
        return path.read_bytes()
    except (OSError, RuntimeError):
        return b""
