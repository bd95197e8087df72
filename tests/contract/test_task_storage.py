"""The cache of decoded images: it saves time, and never changes or breaks anything."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from espalier.core import FileError
from espalier.tasks import Storage, Task, load_task
from espalier.tasks.storage import cache_folder

GENERATOR = np.random.default_rng(2)


def png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, name: str, count: int = 40) -> None:
    images = [png(GENERATOR.integers(0, 256, (4, 5, 3), np.uint8)) for _ in range(count)]
    parquet.write_table(pyarrow.table({"img": images, "label": [i % 2 for i in range(count)]}), folder / name)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("espalier.tasks.storage._CACHED_FROM", 10)
    monkeypatch.setattr("espalier.tasks.storage._CHUNK_BYTES", 16 * 60)
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, "train.parquet")
    write(folder, "test.parquet", 4)  # too few to be cached
    return folder


def load(data: Path, cache: Path | None) -> Task:
    return load_task(f"parquet:{data}", storage=Storage(cache=cache, workers=0))


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how many images are decoded for the cache."""
    from espalier.tasks import storage

    decoded, real = [], storage._decoded
    monkeypatch.setattr(storage, "_decoded", lambda images, what: decoded.append(len(images)) or real(images, what))
    return decoded


def test_what_was_decoded_is_found_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, cache = load(data, None), tmp_path / "deep" / "cache"
    decoded = no_decoding(monkeypatch)
    first, second = load(data, cache), load(data, cache)
    assert decoded == [36, 4, 4, 4, 4]  # training once; validation and test, of four images each, every time
    for task in (first, second):
        assert torch.equal(task.train.images, plain.train.images)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    write(data, "train.parquet")
    assert not torch.equal(load(data, cache).train.images, plain.train.images)  # other files, another name
    assert len(list(cache.iterdir())) == 2
    load_task(f"parquet:{data}", image_size=6, storage=Storage(cache=cache))
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),  # a flipped bit, which the format does not see
        lambda content: b"",
        lambda content: b"something else",
    ],
)
def test_a_damaged_cache_is_made_again(data: Path, tmp_path: Path, damage) -> None:
    plain = load(data, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert torch.equal(load(data, tmp_path / "cache").train.images, plain.train.images)
    assert path.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert len(load(data, tmp_path / "file").train.images) == 36

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("espalier.tasks.storage.save_file", full)
    assert len(load(data, tmp_path / "cache").train.images) == 36
    assert not list((tmp_path / "cache").iterdir())


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_CACHE", "")
    assert cache_folder() is None
    monkeypatch.setenv("ESPALIER_CACHE", "~/here")
    assert cache_folder() == Path.home() / "here"
    monkeypatch.delenv("ESPALIER_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/espalier")


def test_processes_that_may_have_no_children_decode_themselves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load(data, None)
    monkeypatch.setattr("espalier.tasks.streaming.current_process", lambda: SimpleNamespace(daemon=True))
    monkeypatch.setattr("espalier.tasks.streaming.DataLoader", None)
    task = load_task(f"parquet:{data}", storage=Storage(memory_bytes=0, workers=2))
    assert torch.equal(next(iter(task.train))[0], next(iter(plain.train))[0])
    assert torch.equal(load(data, tmp_path / "cache").train.images, plain.train.images)


def test_errors_of_many_images_are_as_clear(data: Path, tmp_path: Path) -> None:
    images = [png(GENERATOR.integers(0, 256, (4, 5, 3), np.uint8)) for _ in range(40)]
    images[7] = b"no image"
    parquet.write_table(pyarrow.table({"img": images, "label": [0, 1] * 20}), data / "train.parquet")
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(FileError, match=r"row 7 is not an image"):
            load(data, cache)
