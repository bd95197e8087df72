"""No file makes a model claim grids that it does not have: names, counts, bits, steps and weights are checked."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import espalier as es
from espalier.core import FileError
from espalier.graph.grids import grids_of

from .coding_files import joined, parts
from .model_files import read, rewrite
from .quantized import EXAMPLE, Small, quantized

Change = Callable[[dict[str, Any]], Any]


def steps(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def put(*path: Any) -> Change:
    """Return a function that puts the last item at the place that the others name."""

    def change(data: dict[str, Any]) -> None:
        *where, last, value = path
        for step in where:
            data = data[step]
        data[last] = value

    return change


HOSTILE: list[tuple[Change, str]] = [
    (put("inputs", "first", "bits", 1), "2 to 16 bits"),
    (put("inputs", "first", "bits", 64), "2 to 16 bits"),
    (put("inputs", "first", "bits", True), "2 to 16 bits"),
    (put("inputs", "first", "step", 0), "above zero"),
    (put("inputs", "first", "step", -1.0), "above zero"),
    (put("inputs", "first", "step", "x"), "above zero"),
    (put("inputs", "first", "step", 1e300), "above zero"),
    (put("inputs", "first", "step", 10**400), "above zero"),
    (put("inputs", "first", "zero_point", 10**30), "none of the integers"),
    (put("inputs", "first", "zero_point", 0.5), "is an integer"),
    (put("inputs", "first", "signed", "yes"), "is a bool"),
    (put("inputs", "first", "more", 1), "cannot be read"),
    (put("inputs", "first", "kind", "__class__"), "no kind of grid"),
    (put("inputs", "first", None), "cannot be read"),
    (put("inputs", "nobody", {"kind": "sign", "scaled": False}), "unknown module"),
    (put("inputs", "norm", {"kind": "sign", "scaled": True}), "not in a BatchNorm2d"),
    (put("inputs", "first", {"kind": "sign", "scaled": 1}), "True or False"),
    (put("inputs", "head", {"kind": "dynamic", "bits": 8, "per": "call"}), "per 'token'"),
    (put("inputs", []), "cannot be read"),
    (put("more", {}), "those of inputs and of weights"),
    (put("weights", "nobody", [4, None, "float32", steps(1)]), "unknown weight"),
    (put("weights", "norm.num_batches_tracked", [4, None, "float32", steps(1)]), "unknown weight"),
    (put("weights", "head.weight", [4, 0, "float32", steps(1, 2)]), "2 steps of dimension 0"),
    (put("weights", "head.weight", [4, 7, "float32", steps(1, 2)]), "2 steps of dimension 7"),
    (put("weights", "head.weight", [4, None, "float32", steps(1, 2)]), "has 2 steps"),
    (put("weights", "head.weight", [4, None, "float32", steps(float("nan"))]), "finite and above zero"),
    (put("weights", "head.weight", [4, None, "float32", steps(float("inf"))]), "finite and above zero"),
    (put("weights", "head.weight", [4, None, "float32", steps(0.0)]), "finite and above zero"),
    (put("weights", "head.weight", [4, None, "float32", steps(0.37)]), "does not lie on its grid"),
    (put("weights", "head.weight", [0, None, "float32", steps(1)]), "2 to 16 bits"),
    (put("weights", "head.weight", [4, None, "float64", steps(1, 1)]), "steps of torch.float64"),
    (put("weights", "head.weight", [4, None, "int32", steps(1)]), "cannot be read"),
    (put("weights", "head.weight", [4, None, "float32", "!"]), "cannot be read"),
    (put("weights", "head.weight", [4, None, "float32", 5]), "cannot be read"),
    (put("weights", "head.weight", [4, -1, "float32", steps(*[1] * 10)]), "of the dimension that axis says"),
    (put("weights", "head.weight", [4]), "cannot be read"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    model = quantized()
    es.save(model, folder / "a.safetensors")
    es.encode(model, folder / "a.esp", threads=1)
    return folder / "a.safetensors", folder / "a.esp"


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_hostile_grids_are_refused_and_the_model_is_as_it_was(
    files: tuple[Path, Path], tmp_path: Path, change: Change, message: str
) -> None:
    model, saved, coded = quantized(), tmp_path / "b.safetensors", tmp_path / "b.esp"
    before, grids = model(EXAMPLE), grids_of(model)
    saved.write_bytes(files[0].read_bytes())
    data = json.loads(read(saved)["grids"])
    change(data)
    rewrite(saved, grids=json.dumps(data))
    header, streams = parts(files[1].read_bytes())
    change(header["grids"])
    coded.write_bytes(joined(header, streams, version=2))
    for path, load in ((saved, es.load), (coded, es.decode)):
        for given in (model, Small):
            with pytest.raises(FileError, match=message):
                load(path, given)
    assert grids_of(model) is grids and torch.equal(model(EXAMPLE), before)


def test_grids_are_under_the_files_hash_and_version(files: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(files[0].read_bytes())
    assert read(path)["espalier"] == "2"
    for change, message in (({"espalier": "1"}, "version '1'"), ({"espalier": "3"}, "version '3'")):
        path.write_bytes(files[0].read_bytes())
        rewrite(path, **change)
        with pytest.raises(FileError, match=message):
            es.load(path, Small)
    plain = files[1].read_bytes()
    header, streams = parts(plain)
    coded = tmp_path / "c.esp"
    for version, more, message in ((1, {}, "not written as a header is"), (3, {}, "format version 3")):
        coded.write_bytes(joined({**header, **more}, streams, version=version))
        with pytest.raises(FileError, match=message):
            es.decode(coded, Small)
    del header["grids"]
    coded.write_bytes(joined(header, streams, version=2))
    with pytest.raises(FileError, match="not written as a header is"):
        es.decode(coded, Small)
