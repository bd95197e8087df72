"""``espalier encode``, ``decode`` and ``inspect``: from a file to a smaller one and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import espalier as es
from espalier.zoo.digits_cnn import digits_cnn

from .test_cli import run


@pytest.fixture
def model(tmp_path: Path) -> nn.Module:
    torch.manual_seed(0)
    model = digits_cnn()
    es.save(model, tmp_path / "model.safetensors")
    return model


def test_a_file_goes_and_comes_back_byte_for_byte(model: nn.Module, tmp_path: Path, capsys) -> None:
    source, small, back = (tmp_path / name for name in ("model.safetensors", "model.esp", "back.safetensors"))
    assert run("encode", str(source), "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["file"] == str(small) and data["bytes"] == small.stat().st_size < source.stat().st_size
    assert run("decode", str(small), "--out", str(back)) == 0
    assert capsys.readouterr().out.startswith(f"{back}\n")
    assert back.read_bytes() == source.read_bytes()


def test_a_foreign_file_is_encoded_too(tmp_path: Path, capsys) -> None:
    save_file({"w": torch.randn(30, 40), "n": torch.tensor(3)}, tmp_path / "foreign.safetensors")
    assert run("encode", str(tmp_path / "foreign.safetensors"), "--out", str(tmp_path / "f.esp"), "--threads", "1") == 0
    assert run("decode", str(tmp_path / "f.esp"), "--out", str(tmp_path / "f.safetensors")) == 0
    back, original = load_file(tmp_path / "f.safetensors"), load_file(tmp_path / "foreign.safetensors")
    assert set(back) == set(original) and all(torch.equal(back[name], original[name]) for name in back)


def test_inspect_shows_where_the_bytes_go(model: nn.Module, tmp_path: Path, capsys) -> None:
    es.encode(model, tmp_path / "model.esp")
    for name in ("model.esp", "model.safetensors"):
        assert run("inspect", str(tmp_path / name), "--json") == 0
        data = json.loads(capsys.readouterr().out)
        assert data["bytes"] == (tmp_path / name).stat().st_size
        assert data["bytes"] == data["header_bytes"] + sum(one["bytes"] for one in data["tensors"])
        assert {one["name"]: one["shape"] for one in data["tensors"]} == {
            key: list(tensor.shape) for key, tensor in model.state_dict().items()
        }
        assert run("inspect", str(tmp_path / name)) == 0
        out = capsys.readouterr().out
        assert f"{data['bytes']:,} bytes" in out and "bits each" in out and "%" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode nowhere", "nowhere is not a run folder"),
        ("encode broken.safetensors", "truncated, damaged or not a safetensors file"),
        ("decode model.safetensors --out x.safetensors", "is not an .esp file"),
        ("decode nowhere.esp --out x.safetensors", "cannot read"),
        ("decode model.esp", "decode needs --out"),
        ("inspect broken.safetensors", "neither .esp nor safetensors"),
        ("inspect nowhere.esp", "cannot read"),
        ("encode model.safetensors --threads 0", "--threads"),
    ],
)
def test_mistakes_get_one_message(model, tmp_path: Path, monkeypatch, capsys, line: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.safetensors").write_bytes(Path("model.safetensors").read_bytes()[:99])
    before = sorted(tmp_path.iterdir())
    assert run(*line.split()) == 2
    assert message in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before
