"""`decode(encode(x))` is x, bit by bit, for models and for tensors of every kind; and sizes are those of the file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import espalier as es
from espalier import coding
from espalier.coding import Codebook, Uniform, binary, ternary
from espalier.core import FileError, KindError
from espalier.graph import files
from espalier.graph.surgery.operate import operate

from .coding_files import CODERS, every_kind, parts, same
from .model_files import Tied, state, surgery

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_kind_comes_back_bit_by_bit(tmp_path: Path, threads: int) -> None:
    tensors, made = every_kind()
    report = coding.encode(tensors, tmp_path / "all.esp", tensors=made, threads=threads)
    back = coding.decode(tmp_path / "all.esp", threads=threads)
    assert set(back) == set(tensors) and all(same(back[name], tensors[name]) for name in tensors)
    again = coding.encode(tensors, tmp_path / "again.esp", tensors=made, threads=threads)
    assert (tmp_path / "again.esp").read_bytes() == (tmp_path / "all.esp").read_bytes()
    assert coding.inspect(tmp_path / "all.esp") == report and again.tensors == report.tensors
    assert report.bytes == os.stat(tmp_path / "all.esp").st_size
    assert report.header_bytes + sum(one.bytes for one in report.tensors) == report.bytes


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    dtype=st.sampled_from(DTYPES),
    levels=st.integers(1, 300),
    coder=st.sampled_from(CODERS),
)
def test_grids_and_codebooks_come_back(tmp_path_factory, shape, seed, dtype, levels: int, coder) -> None:
    generator = torch.Generator().manual_seed(seed)
    axis = int(torch.randint(-len(shape), len(shape), (), generator=generator))
    symbols = torch.randint(0, levels, shape, generator=generator)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    steps = torch.rand(shape[axis], generator=generator).to(kind)
    book = torch.randn(shape[axis], levels, generator=generator).to(dtype)
    made = {
        "grid": Uniform(integers=symbols - levels // 2, step=steps, axis=axis, dtype=dtype, coder=coder),
        "one": Uniform(integers=symbols, step=steps[0], dtype=dtype, coder=coder),
        "books": Codebook(symbols=symbols, codebook=book, axis=axis, coder=coder),
        "book": Codebook(symbols=symbols, codebook=book[0], coder=coder),
    }
    tensors = {name: value.value() for name, value in made.items()}
    path = tmp_path_factory.mktemp("coded") / "m.esp"
    coding.encode(tensors, path, tensors=made, threads=1)
    back = coding.decode(path, threads=1)
    assert all(same(back[name], tensors[name]) for name in tensors)


def test_a_cut_model_comes_back_as_from_safetensors(dense: Tied, tmp_path: Path) -> None:
    small = operate(dense, surgery((1, 2, 5)))
    small.espalier_source = "espalier:nobody"  # type: ignore[assignment]
    es.save(small, tmp_path / "m.safetensors")
    es.encode(small, tmp_path / "m.esp")
    expected, before = files.load(tmp_path / "m.safetensors", dense), state(dense)
    for given_ in (dense, Tied):
        back = es.decode(tmp_path / "m.esp", given_)
        assert all(same(tensor, back.state_dict()[name]) for name, tensor in expected.state_dict().items())
        assert back.espalier_surgery == expected.espalier_surgery == small.espalier_surgery
        assert back.same.weight is back.head.weight and back.config.width == 3 == back.encode.out_features
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())
    held = coding.decoded(tmp_path / "m.esp")
    files.write(held, tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    coding.encode(files.read(tmp_path / "back.safetensors"), tmp_path / "again.esp")
    assert (tmp_path / "again.esp").read_bytes() == (tmp_path / "m.esp").read_bytes()
    named = es.decode(tmp_path / "m.esp")
    assert set(named) == set(small.state_dict()) and named["same.weight"] is named["head.weight"]


def test_a_file_of_another_network_is_refused(dense: Tied, tmp_path: Path) -> None:
    es.encode(nn.Linear(6, 8), tmp_path / "m.esp")
    with pytest.raises(FileError, match="does not fit this Tied: the model has no tensor 'bias'"):
        es.decode(tmp_path / "m.esp", dense)


def test_what_a_tensor_is_made_of_must_be_that_tensor(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    value = binary(model.weight > 0, model.weight.detach().abs().mean())
    cases: list[tuple[dict, str]] = [
        ({"weight": value}, "is not what its Codebook says"),
        ({"wieght": value}, "there is no tensor 'wieght'"),
        ({"bias": value}, r"tensor 'bias' is torch.float32 \(3,\), and its Codebook gives torch.float32 \(3, 4\)"),
    ]
    for tensors, message in cases:
        with pytest.raises(FileError, match=message):
            coding.encode(model, tmp_path / "m.esp", tensors=tensors)
    assert not list(tmp_path.iterdir())
    with torch.no_grad():
        model.weight.copy_(value.value())
    report = coding.encode(model, tmp_path / "m.esp", tensors={"weight": value})
    assert {one.name: one.kind for one in report.tensors}["weight"] == "codebook of 2"
    assert same(coding.decode(tmp_path / "m.esp")["weight"], model.weight)


def test_one_and_two_bits_a_weight(tmp_path: Path) -> None:
    signs = torch.randn(64, 1000)
    made = {
        "one": binary(signs > 0, signs.abs().mean(1)),
        "two": ternary(signs.round().clamp(-1, 1), torch.rand(64), torch.rand(64)),
    }
    report = coding.encode({name: value.value() for name, value in made.items()}, tmp_path / "m.esp", tensors=made)
    one, two = (entry.bytes for entry in report.tensors)
    assert one <= 64_000 / 8 + 2 * 4 * 64 + 20 and two <= 2 * 64_000 / 8 + 3 * 4 * 64 + 20
    assert [entry.coder for entry in report.tensors] == ["packed", "packed"]


def test_a_clustered_file_is_seen_to_be_one(tmp_path: Path) -> None:
    weight = torch.randn(16)[torch.randint(0, 16, (200, 100))]
    weight[torch.rand(200, 100) < 0.9] = 0
    (one,) = coding.encode({"w": weight}, tmp_path / "m.esp").tensors
    assert one.kind in ("codebook", "sparse") and one.bits < 0.469 + 0.1 * 4 + 0.1


def test_no_stream_is_denser_than_the_reader_allows(tmp_path: Path) -> None:
    report = coding.encode({"w": torch.zeros(1000, 1000)}, tmp_path / "m.esp")
    assert 1_000_000 / 4096 <= report.tensors[0].bytes <= 1_000_000 / 4096 + 5
    assert not coding.decode(tmp_path / "m.esp")["w"].any()
    wide = Codebook(symbols=torch.zeros(4000, 1, dtype=torch.long), codebook=torch.zeros(4000, 2000))
    coding.encode({"w": wide.value()}, tmp_path / "m.esp", tensors={"w": wide})
    assert not coding.decode(tmp_path / "m.esp")["w"].any()


def test_the_header_is_small_and_says_what_safetensors_says(dense: Tied, tmp_path: Path) -> None:
    small = operate(dense, surgery((1, 2, 5)))
    es.encode(small, tmp_path / "m.esp")
    header, streams = parts((tmp_path / "m.esp").read_bytes())
    assert set(header) == {"architecture", "surgery", "aliases", "proof", "sha256", "tensors"}
    assert header["surgery"] == json.loads(json.dumps(small.espalier_surgery.to_data()))
    assert header["aliases"] == [["same.weight", "head.weight"]]
    assert sum(size for _, _, _, size in header["tensors"]) == len(streams)


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.esp"
    coding.encode({"w": torch.ones(3)}, path)
    before = path.read_bytes()
    with pytest.raises(KindError, match="takes an nn.Module or tensors by name, not list"):
        coding.encode([torch.ones(3)], path)  # type: ignore[arg-type]
    with pytest.raises(FileError, match="cannot hold"):
        coding.encode({"w": torch.zeros(3, dtype=torch.complex128)}, path)
    monkeypatch.setattr(coding.files, "to_stream", lambda tensor, value: b"\x00\x00" + b"\x01" * 12)
    with pytest.raises(FileError, match="does not decode to what it was: nothing is written"):
        coding.encode({"w": torch.zeros(3)}, path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["m.esp"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Codebook(symbols=torch.ones(3), codebook=torch.ones(2)), "symbols are a tensor of integers"),
        (lambda: Codebook(symbols=torch.tensor([2]), codebook=torch.ones(2)), "its 2 entries: 0 to 1"),
        (lambda: Codebook(symbols=torch.tensor([0]), codebook=torch.ones(0)), "not empty"),
        (
            lambda: Codebook(symbols=torch.zeros(3, 2).int(), codebook=torch.ones(2, 4)),
            "for 2 channels, and dimension 0",
        ),
        (lambda: Uniform(integers=torch.tensor([1]), step=torch.tensor(1)), "is a torch.float32 tensor"),
        (lambda: Uniform(integers=torch.tensor([1]), step=torch.ones(1), dtype=torch.int8), "floating-point"),
        (lambda: Uniform(integers=torch.tensor([0, 1 << 23]), step=torch.ones(())), "below 2"),
        (lambda: Uniform(integers=torch.zeros(3, 2).int(), step=torch.ones(2), axis=5), "dimension 5"),
    ],
)
def test_values_that_mean_nothing_are_refused(make, message: str) -> None:
    with pytest.raises(KindError, match=message):
        make()
