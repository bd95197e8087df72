"""The page's scripts: plotly packed into it once, its data, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

# Ends a script element, opens a comment in it, or ends a line in JavaScript though not in JSON.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class Script:
    """What a page with interactive charts holds.

    Attributes:
        plotly: the library, gzip and then base64: a third of its size.
        page: the script that unpacks it and draws.
        data: the charts as JSON that is safe inside a script element.
        policy: sources of the content security policy: these two scripts, by their SHA-256.
    """

    plotly: str
    page: str
    data: str
    policy: str


def script(charts: list[dict[str, Any]]) -> Script:
    """Return the scripts that draw ``charts``."""
    packed, digest = _plotly()
    page = files("espalier.report").joinpath("page.js").read_text(encoding="utf-8")
    return Script(packed, page, safe_json(charts), f"{digest} {_source(page)}")


def safe_json(data: Any) -> str:
    """Return JSON that can stand inside a script element whatever the strings in it are."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False).translate(_UNSAFE)


@cache
def _plotly() -> tuple[str, str]:
    """Return plotly's script, packed, and its source in the policy."""
    from plotly.offline import get_plotlyjs

    text = get_plotlyjs()
    packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)  # without a time: the same page every time
    return base64.b64encode(packed).decode(), _source(text)


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
