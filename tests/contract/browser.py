"""Headless Chromium for the tests that look at a page; they skip with a reason where there is none."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium on the PATH to open the page with (apt-get install chromium)"
)
_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000"]


@dataclass(frozen=True)
class Seen:
    """A page after its scripts ran: its elements, and what its console said."""

    dom: str
    console: tuple[str, ...]


def opened(path: Path, *options: str) -> Seen:
    """Open a page without any network and return what became of it."""
    profile = f"--user-data-dir={path.parent / 'profile'}"
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files"]
    command = [str(BROWSER), *_OPTIONS, *offline, profile, *options, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return Seen(done.stdout, tuple(re.findall(r":CONSOLE[:(]\d+\)?\] (.*)", done.stderr)))
