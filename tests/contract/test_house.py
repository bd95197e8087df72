"""The house: its front door is light, and its papers say what is there."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import espalier as es

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEAVY = ("torch", "numpy", "sklearn", "timm", "transformers", "plotly")


def python(*arguments: str, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess[str]:
    """Run this Python on its own."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, text=True, capture_output=True, timeout=600, check=False, **options
    )


def imported_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter has imported after ``code``."""
    done = python("-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY)


def blocks(language: str) -> list[str]:
    """Return README's fenced blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_import_is_light() -> None:
    assert imported_by("import espalier") == set()
    assert imported_by("import espalier; espalier.Budget(macs=0.5)") == set()


def test_front_door_lists_what_it_serves() -> None:
    assert es.__all__ == sorted(es._HOMES)
    assert sorted(dir(es)) == sorted([*es.__all__, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        _ = es.prune


@pytest.mark.parametrize("name", es.__all__)
def test_public_name_is_there(name: str) -> None:
    value = getattr(es, name)
    assert value is not None
    assert value.__doc__, f"es.{name} says nothing about itself"


def test_help_costs_little() -> None:
    help_ = "import sys\nfrom espalier.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert imported_by(help_) == set()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python("-c", help_)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "usage: espalier" in done.stdout
    assert seconds <= 0.3  # of processor time, which other work on the machine does not stretch


def test_readme_names_real_commands() -> None:
    from espalier.cli import COMMANDS

    shell = "\n".join(blocks("sh"))
    used = set(re.findall(r"^espalier (\w+)", shell, flags=re.MULTILINE))
    assert used and used <= set(COMMANDS)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([\w-]+)", shell, flags=re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_papers_link_to_what_exists() -> None:
    for paper in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\(([^)#:]+)[^)]*\)", paper.read_text(encoding="utf-8"))
        missing = [link for link in links if not (paper.parent / link).exists()]
        assert not missing, f"{paper.name} links to {missing}"


def test_changelog_knows_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[({re.escape(es.__version__)}|Unreleased)\]", text, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("code", blocks("python"))
def test_readme_python_runs(code: str, tmp_path: Path) -> None:
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
