"""Tasks: splits that do not overlap and follow the rule, and errors that say what."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import espalier as es
from espalier.core import FileError, UnknownNameError
from espalier.tasks import Augment, Loader, Normalise, Storage, load_task
from espalier.tasks.images import EncodedImages

AS_IS_RGB = Normalise((0.0,) * 3, (1.0,) * 3)


def png(value: int, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> bytes:
    """Encode an image of one colour, without loss."""
    buffer = BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, labels: list[Any], image: str = "img", label: str = "label", **options: Any) -> None:
    """Write a Parquet file whose image number i has the colour i."""
    images = [{"bytes": png(i % 256, **options), "path": None} for i in range(len(labels))]
    parquet.write_table(pyarrow.table({image: images, label: labels}), path)


def colours(loader: Loader) -> list[int]:
    """Return the colours of a loader's images, in its order."""
    return [round(255 * value) for x, _ in loader for value in x[:, 0, 0, 0].tolist()]


# ---------------------------------------------------------------- digits


def test_digits() -> None:
    task = es.load_task("digits", batch_size=100)
    plain = Loader(task.train.images, task.train.targets, task.train.normalise)
    splits = [
        [(image, label) for x, y in split for image, label in zip(x, y, strict=True)]
        for split in (plain, task.validation, task.test)
    ]
    assert [len(split) for split in splits] == [1259, 179, 359]
    assert (task.classes, task.input_shape, task.example(3).shape) == (10, (1, 8, 8), (3, 1, 8, 8))
    rows = [tuple(image.flatten().tolist()) for split in splits for image, _ in split]
    assert len(set(rows)) == 1797  # all there, none twice
    x = torch.cat([x for x, _ in plain])
    assert abs(float(x.mean())) < 0.01 and abs(float(x.std()) - 1) < 0.01
    assert float(task.loss(torch.zeros(4, 10), torch.arange(4))) == pytest.approx(np.log(10))


# ---------------------------------------------------------------- parquet


def test_parquet_follows_the_split_rule(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [i % 3 for i in range(100)], label="target")
    write(tmp_path / "test.parquet", [0, 1, 2], label="target")
    task = load_task(f"parquet:{tmp_path}", normalise=AS_IS_RGB)
    order = np.random.default_rng(0).permutation(100)
    assert colours(task.validation) == order[90:].tolist()
    assert sorted(colours(task.train)) != colours(task.train)
    assert task.train.targets.tolist() == [i % 3 for i in order[:90]]
    assert colours(task.test) == [0, 1, 2]
    assert (task.classes, task.input_shape, task.train.augment) == (3, (3, 4, 4), Augment(flip=True, pad=0))


def test_parquet_with_shards_names_and_validation(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", ["dog", "cat"], image="image", mode="L")
    write(tmp_path / "train-1.parquet", ["emu"], image="image", mode="L")
    write(tmp_path / "val.parquet", ["emu", "cat"], image="image", mode="L")
    write(tmp_path / "test.parquet", ["cat"], image="image", mode="L")
    task = load_task(f"parquet:{tmp_path}")
    assert task.train.targets.tolist() == [1, 0, 2]
    assert task.validation.targets.tolist() == [2, 0]
    assert task.input_shape == (1, 4, 4)
    assert task.train.augment == Augment(flip=False, pad=0)  # a mirrored digit is another digit


def test_parquet_scales_when_asked(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.parquet", [0, 1] * 10, size=(6, 9))
    assert load_task(f"parquet:{tmp_path}").input_shape == (3, 9, 6)
    assert load_task(f"parquet:{tmp_path}", image_size=5).example().shape == (2, 3, 5, 5)


@pytest.mark.parametrize(
    ("test_columns", "train_columns", "message"),
    [
        ({"img": [{"bytes": png(1)}], "label": [0]}, {"text": ["a"], "label": [0]}, "none is a struct with bytes"),
        ({"img": [png(1)], "label": [0]}, {"img": [png(1)], "a": [0], "b": [0]}, "exactly one must hold labels"),
        ({"img": [png(1)], "label": [0]}, {"img": [b"no image"] * 9, "label": [0] * 9}, "row 0 is not an image"),
        ({"img": [png(1)], "label": [0]}, {"img": [png(1), png(1, (5, 5))], "label": [0, 1]}, "row 1 is 5x5"),
        ({"img": [png(1)], "label": [7]}, {"img": [png(1)] * 20, "label": [0, 1] * 10}, "classes that training has"),
        ({"img": [png(1)], "label": [-1]}, {"img": [png(1)] * 20, "label": [0, 1] * 10}, "negative"),
        ({"img": [png(1)], "label": [None]}, {"img": [png(1)] * 20, "label": [0, 1] * 10}, "no rows|without a label"),
        ({"img": [png(1)], "label": ["c"]}, {"img": [png(1)] * 20, "label": ["a", "b"] * 10}, "the class 'c'"),
        ({"img": [png(1)]}, {"img": [png(1)] * 20, "label": [0, 1] * 10}, "no column 'label'"),
        ({"img": [png(1)], "label": [0]}, {"img": [png(1)] * 5, "label": [0] * 5}, "validation split is empty"),
    ],
)
def test_wrong_parquet(tmp_path: Path, test_columns: dict, train_columns: dict, message: str) -> None:
    parquet.write_table(pyarrow.table(train_columns), tmp_path / "train.parquet")
    parquet.write_table(pyarrow.table(test_columns), tmp_path / "test.parquet")
    with pytest.raises(FileError, match=message):
        load_task(f"parquet:{tmp_path}")


def test_damaged_parquet(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"has no train\.parquet"):
        load_task(f"parquet:{tmp_path}")
    write(tmp_path / "train.parquet", [0, 1])
    (tmp_path / "test.parquet").write_bytes((tmp_path / "train.parquet").read_bytes()[:-20])
    with pytest.raises(FileError, match="cannot be read"):
        load_task(f"parquet:{tmp_path}")


# ---------------------------------------------------------------- image folders


def folder(path: Path, counts: dict[str, int], size: tuple[int, int] = (4, 4)) -> None:
    """Fill a folder a class; colours count up over all classes."""
    value = 0
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for index in range(count):
            (path / name / f"{index:03}.png").write_bytes(png(value, size))
            value += 1


def test_imagefolder_with_three_splits(tmp_path: Path) -> None:
    for split, counts in {"train": {"a": 2, "b": 3}, "valid": {"b": 1}, "test": {"a": 1, "b": 1}}.items():
        folder(tmp_path / split, counts)
    task = load_task(f"imagefolder:{tmp_path}", image_size=4)
    assert task.train.targets.tolist() == [0, 0, 1, 1, 1]
    assert task.validation.targets.tolist() == [1]
    assert [y.tolist() for _, y in task.test] == [[0, 1]]
    assert load_task(f"imagefolder:{tmp_path}").input_shape == (3, 224, 224)


def test_imagefolder_keeps_val_for_the_end(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"a": 10, "b": 10})
    folder(tmp_path / "val", {"a": 2, "b": 1})
    task = load_task(f"imagefolder:{tmp_path}", image_size=4, normalise=AS_IS_RGB)
    assert colours(task.test) == [0, 1, 2]
    assert colours(task.validation) == np.random.default_rng(0).permutation(20)[18:].tolist()
    assert len(task.train.targets) == 18


def test_imagefolder_alone_is_divided(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 10, "b": 20})
    task = load_task(f"imagefolder:{tmp_path}", image_size=4, normalise=AS_IS_RGB)
    order = np.random.default_rng(0).permutation(30).tolist()
    assert colours(task.test) == order[27:]
    assert colours(task.validation) == order[24:27]
    plain = Loader(task.train.images, task.train.targets, AS_IS_RGB)
    assert colours(plain) == order[:24]
    assert task.train.targets.tolist() == [int(i >= 10) for i in order[:24]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [Augment(flip=True, pad=1), Augment(flip=True, crop_area=(0.2, 1.0), colour=0.4)])
def test_what_does_not_fit_in_memory_is_decoded_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, augment: Augment
) -> None:
    folder(tmp_path, {"a": 10, "b": 20}, size=(8, 6))
    monkeypatch.setattr("espalier.tasks.images._SMALL_PIXELS", 0)
    source = f"imagefolder:{tmp_path}"
    options: dict[str, Any] = {"image_size": 4, "batch_size": 7, "augment": augment}
    eager = load_task(source, **options, storage=Storage(workers=0))
    lazy = load_task(source, **options, storage=Storage(workers=workers, memory_bytes=0))
    # random crops come from whole images, which are larger than the inputs: those wait in their files anyway
    assert isinstance(eager.train.images, torch.Tensor) == (augment.crop_area is None)
    assert isinstance(eager.validation.images, torch.Tensor)
    assert not isinstance(lazy.train.images, torch.Tensor)
    for _ in range(2):
        for (x, y), (again, labels) in zip(eager.train, lazy.train, strict=True):
            assert torch.equal(x, again) and torch.equal(y, labels)
    assert (len(lazy.train.images), lazy.train.epoch) == (24, 2)


@pytest.mark.parametrize("source", ["imagefolder", "parquet"])
def test_loaders_travel_to_processes_that_share_nothing(tmp_path: Path, source: str) -> None:
    if source == "imagefolder":
        folder(tmp_path, {"a": 10, "b": 20}, size=(8, 6))
    else:
        write(tmp_path / "train.parquet", [0, 1] * 15)
        write(tmp_path / "test.parquet", [0, 1])
    train = load_task(f"{source}:{tmp_path}", image_size=4, storage=Storage(memory_bytes=0, workers=0)).train
    assert not isinstance(train.images, torch.Tensor)
    copied = pickle.loads(pickle.dumps(train))  # as the start method "spawn" does it
    for (x, y), (again, labels) in zip(train, copied, strict=True):
        assert torch.equal(x, again) and torch.equal(y, labels)


def test_errors_in_worker_processes_are_as_clear(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 20})
    task = load_task(f"imagefolder:{tmp_path}", image_size=4, storage=Storage(workers=1))
    for image in (tmp_path / "a").iterdir():
        image.write_bytes(b"no image any more")
    with pytest.raises(FileError, match=r"^\S+\.png is not an image"):
        list(task.train)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({}, "no folder a class"),
        ({"a": 0}, "no images"),
        ({"train/a": 3}, "neither val/ nor test/"),
        ({"train/a": 30, "val/b": 3}, "the class 'b'"),
    ],
)
def test_wrong_imagefolder(tmp_path: Path, layout: dict[str, int], message: str) -> None:
    folder(tmp_path, layout)
    with pytest.raises(FileError, match=message):
        load_task(f"imagefolder:{tmp_path}", image_size=4)


def test_broken_image_is_named(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 20})
    (tmp_path / "a" / "007.png").write_bytes(png(1)[:30])
    with pytest.raises(FileError, match=r"007\.png is not an image"):
        load_task(f"imagefolder:{tmp_path}", image_size=4, augment=Augment(flip=True))


def test_scaling_covers_and_crops_the_centre() -> None:
    image = Image.new("RGB", (30, 10), (0, 0, 0))
    image.paste((255, 255, 255), (10, 0, 20, 10))  # the middle third is white
    buffer = BytesIO()
    image.save(buffer, "PNG")
    images = EncodedImages(lambda i: buffer.getvalue(), str, torch.arange(1), channels=3, height=10, width=10)
    assert images[torch.tensor([0])].min() == 255


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("digit", UnknownNameError, "Did you mean 'digits'"),
        ("parket:somewhere", UnknownNameError, "parquet:PATH"),
        ("parquet", FileError, "parquet:PATH"),
        ("imagefolder:", FileError, "imagefolder:PATH"),
        ("digits:here", FileError, "takes no path"),
        ("parquet:/no/such/place", FileError, "no such folder"),
    ],
)
def test_wrong_source(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(source)


def test_wrong_options() -> None:
    with pytest.raises(FileError, match="digits are 8x8"):
        load_task("digits", image_size=32)
    with pytest.raises(FileError, match="1 channels"):
        load_task("digits", normalise=AS_IS_RGB)
