"""UCF101 and HMDB51 from their own layouts: right clips, right classes, and no film in two splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from espalier.core import FileError
from espalier.tasks import Loader, load_task
from espalier.tasks.images import Crops
from espalier.tasks.normalise import as_is
from espalier.tasks.sources import hmdb51 as hmdb51_source
from espalier.tasks.sources import ucf101 as ucf101_source
from espalier.tasks.splits import Split
from espalier.tasks.videos import EncodedVideos

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'espalier[video]'")

NAMES = ("Archery", "Bowling")


def film(
    path: Path, count: int = 80, size: tuple[int, int] = (24, 32), first: int = 0, codec: str = "rawvideo"
) -> None:
    """Write a video whose frame number n has the brightness ``first + n`` everywhere, but for a white left edge."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "bgr24" if codec == "rawvideo" else "yuv420p"
        for number in range(count):
            picture = np.full((*size, 3), first + number, np.uint8)
            picture[:, 0] = 255
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def videos(path: Path, **options: int) -> EncodedVideos:
    return EncodedVideos(lambda row: path.read_bytes(), lambda row: str(path), torch.arange(1), **options)


def brightness(clip: torch.Tensor) -> list[int]:
    """Return the middle pixel of every frame."""
    return clip[0, :, clip.shape[2] // 2, clip.shape[3] // 2].tolist()


def moments(when: float) -> Crops:
    return Crops(torch.rand(1, 10, 4), (0.5, 0.9), torch.tensor([when]))


def test_a_clip_is_every_strideth_frame_from_the_middle_of_the_video(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 80)
    clip = videos(tmp_path / "a.avi", height=24, width=32, frames=16, stride=4)[torch.tensor([0])][0]
    assert clip.shape == (3, 16, 24, 32)
    assert clip.dtype == torch.uint8
    assert brightness(clip) == list(range(10, 10 + 64, 4))  # 80 frames leave room for 20 starts: the one in the middle
    assert bool((clip[:, :, :, 0] == 255).all())


@pytest.mark.parametrize(("when", "first"), [(0.0, 0), (0.5, 10), (0.999, 19)])
def test_a_random_part_begins_at_its_moment(tmp_path: Path, when: float, first: int) -> None:
    film(tmp_path / "a.avi", 80)
    encoded = videos(tmp_path / "a.avi", height=12, width=12, frames=16, stride=4)
    clip = encoded.cropped(torch.tensor([0]), moments(when))[0]
    assert clip.shape == (3, 16, 12, 12)
    assert brightness(clip) == list(range(first, first + 64, 4))


def test_a_short_video_begins_again(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 10)
    clip = videos(tmp_path / "a.avi", height=24, width=32, frames=6, stride=4)[torch.tensor([0])][0]
    assert brightness(clip) == [0, 4, 8, 2, 6, 0]


def test_another_shape_is_covered_and_cropped_at_the_centre(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 8, size=(24, 48))
    clip = videos(tmp_path / "a.avi", height=12, width=12, frames=2, stride=1)[torch.tensor([0])][0]
    assert clip.shape == (3, 2, 12, 12)
    assert not bool((clip == 255).any())  # the white edge is outside the square in the middle


@pytest.mark.parametrize("content", [b"", b"no video at all", b"RIFF\x00\x00\x00\x00AVI LIST"])
def test_what_is_no_video_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.avi").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.avi is (not a video that can be read|a video without a frame)"):
        videos(tmp_path / "a.avi", height=8, width=8)[torch.tensor([0])]


def ucf101(folder: Path) -> Path:
    """Write two classes of eight groups of two clips; group 8 is the first list's test, group 7 the second's."""
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES, 1)))
    every = [
        (f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi", i, group)
        for i, name in enumerate(NAMES, 1)
        for group in range(1, 9)
        for clip in (1, 2)
    ]
    for name, label, group in every:
        film(folder / "UCF-101" / name, 20, first=100 * (label - 1) + group, codec="mpeg4")
    for number, test in ((1, 8), (2, 7)):
        train_lines = [f"{name} {label}\n" for name, label, group in every if group != test]
        (lists / f"trainlist{number:02d}.txt").write_text("".join(train_lines))
        (lists / f"testlist{number:02d}.txt").write_text("".join(f"{n}\n" for n, _, group in every if group == test))
    return folder


def hmdb51(folder: Path) -> Path:
    """Write two classes of six films of two clips; film 5 is the test, film 0 in neither."""
    lists = folder / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True)
    for name in ("brush_hair", "cartwheel"):
        rows = []
        for number in range(6):
            for clip in (0, 1):
                file = f"Film_{number}_{name}_u_nm_np1_ba_{clip}.avi"
                film(folder / "hmdb51_org" / name / file, 20)
                rows.append(f"{file} {({5: 2, 0: 0}).get(number, 1)} \n")
        (lists / f"{name}_test_split1.txt").write_text("".join(rows))
    return folder


def films(split: Split) -> set[str]:
    """Return class and group of each clip, as its file's name has them."""
    assert isinstance(split.images, EncodedVideos)
    names = [Path(split.images.place(row)).stem for row in split.images.rows.tolist()]
    return {name.rpartition("_c")[0] for name in names}


def test_ucf101_keeps_groups_apart_and_takes_the_list_that_is_named(tmp_path: Path) -> None:
    folder = ucf101(tmp_path / "ucf")
    found = ucf101_source.read(folder, 16)
    assert found.class_names == NAMES
    assert [len(split.targets) for split in (found.train, found.validation, found.test)] == [24, 4, 4]
    train, validation, test = (films(split) for split in (found.train, found.validation, found.test))
    assert not train & validation and not train & test and not validation & test
    assert test == {"v_Archery_g08", "v_Bowling_g08"}
    assert films(ucf101_source.read(folder, 16, 2).test) == {"v_Archery_g07", "v_Bowling_g07"}
    assert torch.equal(found.test.targets[torch.arange(4)], torch.tensor([0, 0, 1, 1]))


def test_ucf101_is_a_task_by_name(tmp_path: Path) -> None:
    folder = ucf101(tmp_path)
    task, second = (load_task(f"ucf101:{folder}{mark}", batch_size=4, image_size=16) for mark in ("", "#2"))
    assert (task.classes, task.class_names, task.input_shape) == (2, NAMES, (3, 16, 16, 16))
    x, y = next(iter(task.validation))
    assert x.shape == (4, 3, 16, 16, 16)
    assert y.tolist() == [0, 0, 1, 1]
    clips = [torch.cat([x for x, _ in one.train]) for one in (task, second)]
    assert not torch.equal(*clips)


def test_training_sees_other_moments_every_epoch_and_the_same_ones_again(tmp_path: Path) -> None:
    film(tmp_path / "a.avi", 200)
    loader = load_task(f"ucf101:{ucf101(tmp_path)}", image_size=16, batch_size=24).train
    assert isinstance(loader, Loader)
    clips = replace(videos(tmp_path / "a.avi", height=16, width=16), rows=torch.zeros(4, dtype=torch.int64))
    still = replace(loader, images=clips, targets=torch.zeros(4, dtype=torch.int64), normalise=as_is, workers=0)
    first, second = (still.batch(torch.arange(4), epoch, 0)[0] for epoch in (0, 1))
    starts = [brightness(clip)[0] for clip in (*first, *second)]
    assert len(set(starts)) >= 6  # eight draws of 140 moments
    assert torch.equal(first, still.batch(torch.arange(4), 0, 0)[0])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_a_video_that_ends_too_soon_gives_what_there_is(tmp_path: Path, share: float) -> None:
    film(tmp_path / "a.avi", 200, codec="mpeg4")
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content[: int(share * len(content))])
    try:
        clip = videos(tmp_path / "a.avi", height=24, width=32, frames=4, stride=2)[torch.tensor([0])][0]
    except FileError as error:
        assert "is not a video that can be read" in str(error)
    else:
        values = brightness(clip)
        assert values == sorted(values)
        assert values[-1] <= 200 * share + 12


def test_hmdb51_reads_its_own_lists(tmp_path: Path) -> None:
    found = hmdb51_source.read(hmdb51(tmp_path), 16)
    assert found.class_names == ("brush_hair", "cartwheel")
    assert [len(split.targets) for split in (found.train, found.validation, found.test)] == [12, 4, 4]
    clips = found.test.images
    assert isinstance(clips, EncodedVideos)
    assert [Path(clips.place(row)).name[:6] for row in clips.rows.tolist()] == ["Film_5"] * 4
    parts = [
        {Path(s.images.place(r)).name[:6] for r in s.images.rows.tolist()} for s in (found.train, found.validation)
    ]
    assert [len(part) for part in parts] == [3, 1]  # of the four films that train, one is set aside


def test_mistakes_are_told(tmp_path: Path) -> None:
    folder = ucf101(tmp_path / "ucf")
    with pytest.raises(FileError, match="1 to 3"):
        load_task(f"ucf101:{folder}#4")
    with pytest.raises(FileError, match=r"trainlist03\.txt cannot be read"):
        load_task(f"ucf101:{folder}#3")
    (folder / "UCF-101/Archery/v_Archery_g01_c01.avi").unlink()
    with pytest.raises(FileError, match=r"v_Archery_g01_c01\.avi, and it is not there"):
        load_task(f"ucf101:{folder}")
    with pytest.raises(FileError, match=r"ucfTrainTestlist/classInd\.txt"):
        load_task(f"ucf101:{tmp_path}")
    with pytest.raises(FileError, match="CLASS_test_split1"):
        load_task(f"hmdb51:{tmp_path}")
