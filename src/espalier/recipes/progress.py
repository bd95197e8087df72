"""Progress of long work: bars where a person watches, few lines in the log elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..engines import leads

T = TypeVar("T")
_silent: ContextVar[bool] = ContextVar("silent", default=False)
_EVERY_SECONDS = 60.0  # between lines of a log
_WORTH_SECONDS = 5.0  # work that takes less is not told of


@contextmanager
def bar(title: str, total: int | None = None, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Follow long work; calling what it yields moves it by one and shows a text.

    A person who watches sees a bar on stderr with the time left; a log gets a line a minute and one at the end.
    """
    if _silent.get():
        yield lambda text: None
        return
    if not watched():
        yield from _logged(title, total, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total, completed=done, text="")
        yield lambda text: progress.update(task, advance=1, text=text)


@contextmanager
def silence() -> Iterator[None]:
    """Follow nothing inside: whoever does many pieces of work follows those."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _logged(title: str, total: int | None, done: int) -> Iterator[Callable[[str], None]]:
    log = logging.getLogger("espalier")
    begun = said = time.monotonic()
    count, words = done, ""

    def advance(text: str) -> None:
        nonlocal count, said, words
        count, words, now = count + 1, text or words, time.monotonic()
        if now - said >= _EVERY_SECONDS and total:
            left = (now - begun) / (count - done) * (total - count)
            log.info("%s: %d of %d, about %.0f s left%s", title, count, total, left, f", {words}" if words else "")
            said = now

    yield advance
    seconds = time.monotonic() - begun
    if seconds >= _WORTH_SECONDS:
        log.info("%s: %.0f s%s", title, seconds, f", {words}" if words else "")


def each(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield the items while a bar follows them."""
    with bar(title, total) as advance:
        for item in items:
            yield item
            advance("")


def watched() -> bool:
    """Say whether a person sees stderr: a terminal that can draw, and no continuous integration; one rank speaks."""
    return leads() and sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
