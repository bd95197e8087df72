"""CIFAR and MNIST as torchvision leaves them, read without pickle."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from espalier.core import FileError
from espalier.tasks import Augment, Normalise, load_task

GENERATOR = np.random.default_rng(1)

# ---------------------------------------------------------------- CIFAR: pickles of Python 2, opcode by opcode


def text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def numbers(values: list[int]) -> bytes:
    """Return a list in portions of 1,000, as pickle writes it."""
    portions = [values[start : start + 1000] for start in range(0, len(values), 1000)]
    return b"]" + b"".join(b"(" + b"".join(b"K" + bytes([v]) for v in portion) + b"e" for portion in portions)


def array(content: bytes) -> bytes:
    """Return an array of bytes as numpy's pickles of that time have it."""
    count = len(content) // 3072
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"J" + struct.pack("<i", count) + b"M\x00\x0c\x86"
    return made + b"(K\x01" + shape + kind + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"


def batch(images: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
    names = b"](" + b"".join(text(f"{i}.png") for i in range(len(labels))) + b"e"
    items = text("batch_label") + text("batch 1 of 5") + text(key) + numbers(labels)
    return b"\x80\x02}(" + items + text("data") + array(images.tobytes()) + text("filenames") + names + b"u."


def write_cifar10(root: Path, count: int = 40) -> tuple[np.ndarray, list[int]]:
    """Write torchvision's files and return all training images and labels."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    images = GENERATOR.integers(0, 256, (6, count, 3, 32, 32), np.uint8)
    labels = [[int(v) for v in GENERATOR.permutation(count) % 10] for _ in range(6)]
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(batch(images[number], labels[number]))
    meta = text("num_cases_per_batch") + b"M\x10\x27" + text("label_names") + b"]("
    names = b"".join(text(name) for name in "abcdefghij")
    (folder / "batches.meta").write_bytes(b"\x80\x02}(" + meta + names + b"e" + text("num_vis") + b"M\0\x0cu.")
    return images[:5].reshape(-1, 3, 32, 32), sum(labels[:5], [])


def test_the_opcodes_written_here_are_what_pickle_reads() -> None:
    images = GENERATOR.integers(0, 256, (1100, 3072), np.uint8)
    labels = [i % 10 for i in range(1100)]
    found = pickle.loads(batch(images, labels), encoding="bytes")  # our own file
    assert found[b"labels"] == labels and np.array_equal(found[b"data"], images)


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_of_torchvision(tmp_path: Path, inside: bool) -> None:
    images, labels = write_cifar10(tmp_path, count=1040)  # more than one portion of a pickled list
    task = load_task(f"cifar10:{tmp_path / 'cifar-10-batches-py' if inside else tmp_path}")
    order = np.random.default_rng(0).permutation(5200)
    assert torch.equal(task.train.images, torch.from_numpy(images[order[:4680]]))
    assert task.validation.targets.tolist() == np.array(labels)[order[4680:]].tolist()
    assert (task.classes, task.class_names[:2], task.input_shape) == (10, ("a", "b"), (3, 32, 32))
    assert sum(len(y) for _, y in task.test) == 1040


def test_cifar100_of_torchvision(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    images = GENERATOR.integers(0, 256, (300, 3, 32, 32), np.uint8)
    fine = [i % 100 for i in range(300)]
    coarse = text("coarse_labels") + numbers([0] * 300)
    for name in ("train", "test"):
        content = batch(images, fine, "fine_labels")
        (folder / name).write_bytes(content.replace(text("batch_label"), coarse + text("batch_label")))
    task = load_task(f"cifar100:{tmp_path}")
    assert (task.classes, task.class_names) == (100, ())
    assert sorted(y for _, batch_ in task.test for y in batch_.tolist()) == sorted(fine)


def test_a_cifar_file_that_would_run_code_runs_nothing(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    trace = tmp_path / "ran"
    evil = b"cos\nsystem\n(U" + bytes([len(f"touch {trace}")]) + f"touch {trace}".encode() + b"tR0"
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:2] + evil + path.read_bytes()[2:])
    load_task(f"cifar10:{tmp_path}")  # its images are read all the same
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a batch"),
        (b"hello", "cannot be read as a batch"),
        (b"\x80\x02}.", "no batch of CIFAR: it has 0 labels"),
        (batch(np.zeros((4, 3072), np.uint8), [1] * 3), "no batch of CIFAR: it has 3 labels"),
        (batch(np.zeros((4, 3072), np.uint8), [1] * 4)[:-9000], "cannot be read as a batch"),
    ],
)
def test_wrong_cifar(tmp_path: Path, content: bytes, message: str) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(content)
    with pytest.raises(FileError, match=f"data_batch_2.*{message}"):
        load_task(f"cifar10:{tmp_path}")


def test_neither_cache_nor_parquet(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"neither train\.parquet nor torchvision's cifar-10-batches-py"):
        load_task(f"cifar10:{tmp_path}")
    with pytest.raises(FileError, match=r"neither train\.parquet nor torchvision's train-images"):
        load_task(f"mnist:{tmp_path}")
    write_cifar10(tmp_path)
    with pytest.raises(FileError, match="32x32"):
        load_task(f"cifar10:{tmp_path}", image_size=64)


# ---------------------------------------------------------------- MNIST


def idx(values: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder: Path, *, zipped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = GENERATOR.integers(0, 256, (60, 28, 28), np.uint8), np.arange(60, dtype=np.uint8) % 10
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        for split in ("train", "t10k"):
            path = folder / f"{split}-{name}-ubyte"
            if zipped:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                path.write_bytes(idx(values))
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
def test_mnist_of_torchvision(tmp_path: Path, place: str, zipped: bool) -> None:
    images, labels = write_mnist(tmp_path / place, zipped=zipped)
    task = load_task(f"mnist:{tmp_path}", normalise=Normalise((0.0,), (1.0,)))
    order = np.random.default_rng(0).permutation(60)
    assert torch.equal(task.train.images[:, 0], torch.from_numpy(images[order[:54]]))
    assert task.validation.targets.tolist() == labels[order[54:]].tolist()
    x, y = next(iter(task.test))
    assert torch.equal((x[:, 0] * 255).round().byte(), torch.from_numpy(images)) and y.tolist() == labels.tolist()
    assert task.train.augment == Augment(flip=False, pad=2)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda content: content[:-1], "is damaged"),
        ("train-images-idx3-ubyte", lambda content: b"\0\0\x0d" + content[3:], "no IDX file"),
        ("train-images-idx3-ubyte", lambda content: b"\0\0\x08\x03\xff\xff\xff\xff" + content[8:], "is damaged"),
        ("train-labels-idx1-ubyte", lambda content: idx(np.zeros(59, np.uint8)), "60 images and 59 labels"),
        ("t10k-labels-idx1-ubyte", None, "has no t10k-labels-idx1-ubyte"),
    ],
)
def test_wrong_mnist(tmp_path: Path, name: str, change: Any, message: str) -> None:
    write_mnist(tmp_path)
    path = tmp_path / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FileError, match=message):
        load_task(f"mnist:{tmp_path}")


def test_wrong_gzip(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError, match="cannot be read"):
        load_task(f"mnist:{tmp_path}")
    with pytest.raises(FileError, match="28x28"):
        load_task(f"mnist:{tmp_path}", image_size=32)
