"""Tables of images: Hugging Face datasets, label maps, and the real data that the baselines were trained on."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from espalier.core import FileError
from espalier.tasks import Normalise, Storage, load_task
from espalier.tasks.images import Crops, EncodedImages

GENERATOR = np.random.default_rng(1)

# ---------------------------------------------------------------- Hugging Face


def hugging_face(splits: dict[str, int]) -> Any:
    datasets = pytest.importorskip("datasets", reason="the extra espalier[huggingface] is not installed")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})

    def rows(count: int) -> dict[str, Any]:
        pixels = [np.full((4, 5, 3), i, np.uint8) for i in range(count)]
        return {"image": [Image.fromarray(image) for image in pixels], "label": [i % 2 for i in range(count)]}

    made = {name: datasets.Dataset.from_dict(rows(count), features=features) for name, count in splits.items()}
    return datasets.DatasetDict(made)


def reds(x: torch.Tensor) -> list[int]:
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


AS_IS = Normalise((0.0,) * 3, (1.0,) * 3)


def test_datasets_saved_to_disk(tmp_path: Path) -> None:
    hugging_face({"train": 10, "validation": 3, "test": 2}).save_to_disk(tmp_path / "saved")
    task = load_task(f"huggingface:{tmp_path / 'saved'}", normalise=AS_IS)
    assert (task.classes, task.class_names, task.input_shape) == (2, ("no", "yes"), (3, 4, 5))
    assert [reds(x) for x, _ in task.validation] == [[0, 1, 2]]
    assert [(reds(x), y.tolist()) for x, y in task.test] == [([0, 1], [0, 1])]
    with pytest.raises(FileError, match="not what datasets' save_to_disk writes"):
        load_task(f"huggingface:{tmp_path}")


def test_datasets_in_memory() -> None:
    found = hugging_face({"train": 20, "validation": 4})
    found["train"] = found["train"].select(range(19, -1, -1))
    task = load_task(found, normalise=AS_IS)
    order = np.random.default_rng(0).permutation(20)
    assert [reds(x) for x, _ in task.validation] == [(19 - order[18:]).tolist()]
    assert [reds(x) for x, _ in task.test] == [[0, 1, 2, 3]]  # hubs often have no other
    with pytest.raises(FileError, match="neither test nor validation"):
        load_task(hugging_face({"train": 4}))
    with pytest.raises(FileError, match="a DatasetDict with train and test is needed"):
        load_task(found["train"])


# ---------------------------------------------------------------- label maps


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_maps(folder: Path, maps: np.ndarray, splits: tuple[str, ...] = ("train", "val", "test")) -> None:
    images = [encoded(np.repeat(labels[..., None] * 20, 3, 2).astype(np.uint8)) for labels in maps]
    table = pyarrow.table({"image": images, "mask": [encoded(labels) for labels in maps]})
    for split in splits:
        parquet.write_table(table, folder / f"{split}.parquet")


def test_label_maps(tmp_path: Path) -> None:
    maps = GENERATOR.integers(0, 12, (6, 10, 14), np.uint8)
    write_maps(tmp_path, maps)
    task = load_task(f"camvid:{tmp_path}", batch_size=4)
    assert (task.kind, task.metric, task.classes, task.class_names[0]) == ("segmentation", "mean_iou", 11, "sky")
    targets = torch.cat([y for _, y in task.validation])
    assert targets.dtype == torch.int64 and torch.equal(targets, torch.from_numpy(maps).long())
    right = torch.nn.functional.one_hot(targets, 12).movedim(3, 1)[:, :11].float()

    class Right(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return right[: len(x)] if len(x) == 4 else right[4:]

    assert task.measure(Right(), task.validation) == {"mean_iou": 1.0, "pixel_accuracy": 1.0}  # void left out
    for x, y in task.train:  # images show their labels, so that both must have moved alike
        shown = ((x * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) + AS_MEAN) * 255 / 20).round()[:, 0].long()
        assert torch.equal(shown.where(y != 11, 0), y.where(y != 11, 0))


AS_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)


def test_label_maps_with_the_usual_void_and_without(tmp_path: Path) -> None:
    maps = GENERATOR.integers(0, 3, (20, 6, 6), np.uint8)
    write_maps(tmp_path, maps, ("train", "test"))
    assert load_task(f"parquet:{tmp_path}").metrics.void is None
    maps[3, 2:4] = 255
    write_maps(tmp_path, maps, ("train", "test"))
    task = load_task(f"parquet:{tmp_path}")
    assert (task.classes, task.metrics.void, task.train.void) == (3, 255, 255)
    scaled = load_task(f"parquet:{tmp_path}", image_size=5)
    x, y = next(iter(scaled.validation))
    assert x.shape[2:] == y.shape[1:] == (5, 5)
    assert set(y.unique().tolist()) <= {0, 1, 2, 255}


def test_labels_are_copied_never_averaged() -> None:
    content = encoded(GENERATOR.choice(np.array([0, 200], np.uint8), (9, 9)))["bytes"]
    maps = EncodedImages(lambda row: content, str, torch.arange(1), 1, 5, 5, labels=True)
    whole, part = (
        maps[torch.arange(1)],
        maps.cropped(torch.arange(1), Crops(torch.rand(1, 10, 4), (0.3, 0.9), torch.rand(1))),
    )
    assert set(whole.unique().tolist()) == set(part.unique().tolist()) == {0, 200}
    grey = dataclasses.replace(maps, labels=False)
    assert len(grey[torch.arange(1)].unique()) > 2


def test_colour_images_are_no_label_maps(tmp_path: Path) -> None:
    images = [encoded(GENERATOR.integers(0, 255, (4, 4, 3), np.uint8)) for _ in range(10)]
    for split in ("train", "test"):
        parquet.write_table(pyarrow.table({"image": images, "mask": images}), tmp_path / f"{split}.parquet")
    with pytest.raises(FileError, match="row . is no label map: its pixels are RGB"):
        load_task(f"parquet:{tmp_path}")


@pytest.mark.slow
def test_camvid_itself(data_folder: Path) -> None:
    task = load_task(f"camvid:{data_folder / 'camvid'}", batch_size=8)
    assert (task.classes, task.input_shape) == (11, (3, 180, 240))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [46, 13, 30]
    x, y = next(iter(task.train))
    assert y.max() <= 11 and x.shape[2:] == y.shape[1:]


@pytest.mark.slow
def test_cifar_is_divided_as_the_baselines_were(data_folder: Path, tmp_path: Path) -> None:
    task = load_task(f"cifar10:{data_folder / 'cifar10'}", storage=Storage(cache=tmp_path))
    rows = parquet.read_table(data_folder / "cifar10" / "train.parquet")
    order = np.random.default_rng(0).permutation(50_000)
    labels = rows.column("label").to_numpy()
    assert task.train.targets.tolist() == labels[order[:45_000]].tolist()
    assert task.validation.targets.tolist() == labels[order[45_000:]].tolist()
    for position in (0, 17, 44_999):
        content = rows.column("img")[int(order[position])]["bytes"].as_py()
        pixels = np.array(Image.open(BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(task.train.images[position].numpy(), pixels)
    again = load_task(f"parquet:{data_folder / 'cifar10'}", storage=Storage(cache=tmp_path))
    assert torch.equal(task.train.images, again.train.images) and len(list(tmp_path.iterdir())) == 3
