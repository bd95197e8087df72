"""UCF101 in its own layout: 101 actions, clips of 25 groups an action; three pairs of lists.

PATH/UCF-101/CLASS/v_CLASS_g01_c01.avi    PATH/ucfTrainTestlist/{trainlist01,testlist01}.txt and classInd.txt

Source: Soomro, Zamir and Shah, UCF101, CRCV-TR-12-01, 2012, arXiv:1212.0402.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...core import FileError
from ..splits import Splits
from .actions import Clip, lines, splits

_GROUP = re.compile(r"_(g\d+)_c\d+")


def read(path: Path, image_size: int | None, number: int = 1) -> Splits:
    """Return train, validation and test by the lists of a number, 1 to 3; a group is a film.

    Raises:
        FileError: there is no such layout here, or a list names what is not there.
    """
    lists = next((folder for folder in (path / "ucfTrainTestlist", path) if (folder / "classInd.txt").is_file()), None)
    if lists is None:
        raise FileError(f"{path} has no ucfTrainTestlist/classInd.txt, which comes with UCF101's lists")
    videos = path / "UCF-101" if (path / "UCF-101").is_dir() else path
    names = [words[-1] for words in lines(lists / "classInd.txt")]
    train, test = (_clips(lists / f"{what}list{number:02d}.txt", videos, names) for what in ("train", "test"))
    return splits(train, test, names, image_size)


def _clips(file: Path, videos: Path, names: list[str]) -> list[Clip]:
    clips = []
    for words in lines(file):
        name, _, _ = words[0].partition("/")
        if name not in names:
            raise FileError(f"{file} names {words[0]!r}, which is of no class of classInd.txt")
        group = _GROUP.search(words[0])
        clips.append(Clip(str(videos / words[0]), names.index(name), group[1] if group else words[0]))
    return clips
