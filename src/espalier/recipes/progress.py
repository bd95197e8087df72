"""Progress bars on long work, silent where nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


@contextmanager
def bar(title: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr while the body runs; calling what it yields moves the bar by one and shows a text."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not watched()) as progress:
        task = progress.add_task(title, total=total, completed=done, text="")
        yield lambda text: progress.update(task, advance=1, text=text)


def each(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a bar follows them."""
    with bar(title, total) as advance:
        for item in items:
            yield item
            advance("")


def watched() -> bool:
    """Say whether a person sees stderr: a terminal that can draw, and no continuous integration."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
