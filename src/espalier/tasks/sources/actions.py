"""Actions: what UCF101 and HMDB51 share: clips by class, cut from films. The films of a class are in one split each.

Validation is set aside from training by film: clips of a film look alike; a random tenth would flatter the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...core import FileError
from ..splits import VALIDATION_SHARE, Split, Splits, reference_order
from ..videos import EncodedVideos
from .paths import Files

_DEFAULT_SIZE = 112


@dataclass(frozen=True)
class Clip:
    """One file, the number of its class, and the film that it was cut from."""

    path: str
    label: int
    film: str


def splits(train: Sequence[Clip], test: Sequence[Clip], names: Sequence[str], image_size: int | None) -> Splits:
    """Return train, validation (films of a tenth of each class) and test, whose clips wait in their files.

    Raises:
        FileError: a listed file is not there.
    """
    missing = next((clip.path for clip in (*train, *test) if not Path(clip.path).is_file()), None)
    if missing is not None:
        raise FileError(f"the lists name {missing}, and it is not there")
    aside = {film for label in range(len(names)) for film in _aside([clip for clip in train if clip.label == label])}
    size = image_size or _DEFAULT_SIZE
    return Splits(
        train=_split([clip for clip in train if (clip.label, clip.film) not in aside], size),
        validation=_split([clip for clip in train if (clip.label, clip.film) in aside], size),
        test=_split(test, size),
        class_names=tuple(names),
    )


def lines(file: Path) -> list[list[str]]:
    """Return the words of each line that has some.

    Raises:
        FileError: it cannot be read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file} cannot be read: {error}") from error
    return [line.split() for line in text.splitlines() if line.strip()]


def _aside(clips: list[Clip]) -> set[tuple[int, str]]:
    """Return the films of one class that are set aside: a tenth of its clips or a little more, but never all."""
    films = sorted({clip.film for clip in clips})
    chosen: set[tuple[int, str]] = set()
    count = 0
    for number in reference_order(len(films)).tolist()[: len(films) - 1]:
        if count >= VALIDATION_SHARE * len(clips):
            break
        chosen.add((clips[0].label, films[number]))
        count += sum(clip.film == films[number] for clip in clips)
    return chosen


def _split(clips: Sequence[Clip], size: int) -> Split:
    files = Files(tuple(clip.path for clip in clips))
    videos = EncodedVideos(files.content, files.place, torch.arange(len(clips)), size, size)
    return Split(videos, torch.tensor([clip.label for clip in clips], dtype=torch.int64), videos.shape)
