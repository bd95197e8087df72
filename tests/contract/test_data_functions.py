"""``path/to/file.py:function`` as data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import espalier as es
from espalier.core import FileError, UnknownNameError
from espalier.tasks import Task, accuracy, load_task

FILE = """
import torch
import espalier as es
from espalier.tasks import Data

def three(batch_size):
    x, y = torch.arange(20.0).view(-1, 1), torch.arange(20) % 2
    assert batch_size == 5
    return (x, y), (x[:4], y[:4]), (x[:2], y[:2])

def two(seed=0, image_size=None):
    x, y = torch.full((20, 1), float(seed * 100 + image_size)), torch.arange(20) % 2
    return (x, y), (x, y)

def data():
    return Data(train=two(0, 1)[0], test=two(0, 1)[1], class_names=("off", "on"))

def task():
    return es.load_task("digits", batch_size=7)

def four():
    return 1, 2, 3, 4

def nothing():
    pass

def broken():
    return 1 / 0

def needy(path):
    return path
"""


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "mine.py").write_text(FILE)
    return f"{tmp_path}/mine.py"


def test_functions_in_a_file(user_file: str) -> None:
    task = load_task(f"{user_file}:three", batch_size=5)
    assert isinstance(task, Task) and task.name == f"{user_file}:three"
    assert [len(y) for _, y in task.train] == [5] * 4 and [len(y) for _, y in task.test] == [2]
    task = es.load_task(f"{user_file}:two", seed=2, image_size=7)
    assert float(task.example()[0]) == 207 and [len(y) for _, y in task.validation] == [2]
    assert load_task(f"{user_file}:data").class_names == ("off", "on")
    assert load_task(f"{user_file}:task").train.batch_size == 7
    assert accuracy(torch.nn.Linear(1, 2), load_task(f"{user_file}:data").test) == 0.5


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("tow", UnknownNameError, "Did you mean 'two'"),
        ("four", FileError, "returned tuple; it should return a Task"),
        ("nothing", FileError, "returned nothing"),
        ("broken", FileError, "ZeroDivisionError: .* at line 28"),
        ("needy", FileError, "needs arguments .*'path'.*none but batch_size, seed, image_size"),
        ("", FileError, "does not say which function of the file gives the data: say .*mine.py:three"),
    ],
)
def test_functions_that_do_not_give_data(user_file: str, function: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(f"{user_file}:{function}")


def test_files_that_are_not_there() -> None:
    with pytest.raises(FileError, match="no such file"):
        load_task("nowhere/mine.py:data")
