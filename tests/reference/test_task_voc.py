"""PASCAL VOC's own layout, with pictures of a few pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from espalier.core import FileError
from espalier.tasks import load_task
from espalier.tasks.sources.voc import NAMES

Image = pytest.importorskip("PIL.Image")


def kit(folder: Path, train: int = 20, val: int = 3) -> dict[str, np.ndarray]:
    """Write a development kit of small pictures; return the label maps by name."""
    year = folder / "VOCdevkit" / "VOC2011"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (year / name).mkdir(parents=True)
    generator, maps = np.random.default_rng(0), {}
    for split, count in (("train", train), ("val", val)):
        names = [f"{split}_{number:03}" for number in range(count)]
        (year / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            maps[name] = generator.integers(0, 21, (12, 12), np.uint8)
            maps[name][0] = 255
            mask = Image.fromarray(maps[name], "L").convert("L")
            mask = mask.convert("P")
            mask.putdata(maps[name].flatten().tolist())
            mask.putpalette([value for colour in range(256) for value in (colour, 0, 255 - colour)])
            mask.save(year / "SegmentationClass" / f"{name}.png")
            Image.fromarray(generator.integers(0, 255, (12, 12, 3), np.uint8), "RGB").save(
                year / "JPEGImages" / f"{name}.jpg"
            )
    return maps


def test_the_kit_is_read_as_it_comes(tmp_path: Path) -> None:
    maps = kit(tmp_path)
    task = load_task(f"voc:{tmp_path}", batch_size=4, image_size=12)
    assert (task.kind, task.metric, task.classes, task.class_names) == ("segmentation", "mean_iou", 21, NAMES)
    assert len(task.train) == 5 and len(task.validation) == 1  # 18 and 2 of the train list
    targets = torch.cat([y for _, y in task.test])
    expected = np.stack([maps[f"val_{number:03}"] for number in range(3)])
    assert torch.equal(targets, torch.from_numpy(expected).long())  # palettes are numbers of classes, not colours
    assert task.metrics.void == 255


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2011"])
def test_any_folder_of_the_kit_will_do(inside: str, tmp_path: Path) -> None:
    kit(tmp_path)
    assert load_task(f"voc:{tmp_path / inside}", image_size=12).classes == 21


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="has no ImageSets/Segmentation/train.txt, nor a VOC20xx folder"):
        load_task(f"voc:{tmp_path}")
    kit(tmp_path)
    (tmp_path / "VOCdevkit/VOC2011/SegmentationClass/train_003.png").unlink()
    with pytest.raises(FileError, match=r"names 'train_003', and .*train_003.png is not there"):
        load_task(f"voc:{tmp_path}")
