"""HMDB51 in its own layout: 51 actions, clips of films; three splits, a list a class and split.

PATH/hmdb51_org/CLASS/FILM_CLASS_....avi    PATH/testTrainMulti_7030_splits/CLASS_test_split1.txt: NAME 1, 2 or 0

1 is training, 2 the test, and 0 neither. (hmdb51_org may be called hmdb51 or videos, or be PATH itself.)

Source: Kuehne et al., HMDB: a large video database for human motion recognition, ICCV 2011.
"""

from __future__ import annotations

from pathlib import Path

from ...core import FileError
from ..splits import Splits
from .actions import Clip, lines, splits

_LISTS = "testTrainMulti_7030_splits"
_TRAIN, _TEST = "1", "2"


def read(path: Path, image_size: int | None, number: int = 1) -> Splits:
    """Return train, validation and test by the lists of a number, 1 to 3; a clip's name begins with its film's.

    Raises:
        FileError: there is no such layout here, or a list names what is not there.
    """
    lists = path / _LISTS if (path / _LISTS).is_dir() else path
    ending = f"_test_split{number}.txt"
    names = sorted(file.name.removesuffix(ending) for file in lists.glob(f"*{ending}"))
    if not names:
        raise FileError(f"{path} has no {_LISTS}/CLASS{ending}, which come with HMDB51's splits")
    places = (path / "hmdb51_org", path / "hmdb51", path / "videos")
    videos = next((folder for folder in places if folder.is_dir()), path)
    train, test = (_clips(lists, ending, videos, names, use) for use in (_TRAIN, _TEST))
    return splits(train, test, names, image_size)


def _clips(lists: Path, ending: str, videos: Path, names: list[str], use: str) -> list[Clip]:
    clips = []
    for label, name in enumerate(names):
        for words in lines(lists / f"{name}{ending}"):
            if len(words) != 2 or words[1] not in {"0", _TRAIN, _TEST}:
                raise FileError(f"{lists / (name + ending)}: {' '.join(words)!r} is not a file and 0, 1 or 2")
            if words[1] == use:
                film = words[0].partition(f"_{name}_")[0]
                clips.append(Clip(str(videos / name / words[0]), label, film))
    return clips
