"""The page of a study: the answer, every run, and what it takes to repeat it. No script: pictures are SVG."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from shlex import quote

from ..core.findings import Findings
from .page import template
from .pictures import picture


def render_study(findings: Findings, *, folder: str = "") -> str:
    """Return the report of a study as one self-contained HTML page.

    Args:
        findings: what was found.
        folder: of the study, for the command that the page shows.
    """
    room = files("espalier.report")
    style = "\n".join(room.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "study.css"))
    sections = [
        {"title": one.title, "text": one.text, "parts": [(part, picture(part)) for part in one.parts]}
        for one in findings.sections
    ]
    return template("study.html.jinja").render(
        findings=findings, sections=sections, command=_command(Path(folder or findings.name)), style=style
    )


def _command(folder: Path) -> str:
    """Return what goes through the study again; what is in its folder is not computed anew."""
    return f"espalier study {quote(str(folder / 'study.toml'))} --out {quote(str(folder.parent))}"
