"""Questions that only a person may answer."""

from __future__ import annotations

import sys
from pathlib import Path

from ..recipes import Recipe
from ..recipes.folders.origin import is_ours
from ..recipes.named import is_own


def agreed(folder: Path, recipe: Recipe) -> bool:
    """Say whether the code that a run folder names may run: it was written here, or the user agrees."""
    own = [name for name in (recipe.model, recipe.data) if is_own(name)]
    if not own or is_ours(folder):
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(
        f"{folder} was not written here. To resume it runs the code in {own[0]}. Run it? [y/N] ",
        end="",
        file=sys.stderr,
    )
    return input().strip().lower() in ("y", "yes")
