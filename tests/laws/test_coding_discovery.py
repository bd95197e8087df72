"""What tensors are made of is found in their numbers, and whatever is found gives the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import espalier as es
from espalier.coding import Codebook, Uniform, discover, inspect
from espalier.coding.discovery import codebooks
from espalier.coding.tensors import to_stream, to_words
from espalier.graph.carried_grids import Grids
from espalier.graph.files import contents
from espalier.graph.grids import put_grids_
from espalier.graph.weight_grids import WeightGrid


def few(*shape: int, values: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(len(shape) + values)
    return torch.randn(values, generator=generator).to(dtype)[torch.randint(values, shape, generator=generator)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_few_values_are_a_codebook_in_ascending_order(dtype: torch.dtype) -> None:
    tensor = few(16, 8, 3, 3, dtype=dtype)
    first = next(iter(codebooks(tensor)))
    assert first.codebook.ndim == 1 and bool((first.codebook.diff() > 0).all())
    assert torch.equal(first.value(), tensor) and first.value().dtype == dtype


def test_few_values_a_channel_are_a_codebook_each() -> None:
    tensor = torch.stack([few(400, values=3) * (1 + channel / 7) for channel in range(40)])
    (one,) = [book for book in codebooks(tensor) if book.codebook.ndim == 2]
    assert one.codebook.shape == (40, 3) and torch.equal(one.value(), tensor)
    assert len(to_stream(tensor, one)) < 0.6 * len(to_stream(tensor))
    assert discover({"w": tensor})["w"].codebook.ndim == 2  # type: ignore[union-attr]


def test_many_values_are_left_as_they_are() -> None:
    torch.manual_seed(0)
    tensors = {"w": torch.randn(64, 64), "n": torch.arange(50), "s": torch.tensor(3.0), "e": torch.zeros(0, 3)}
    assert discover(tensors) == {}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_is_found_gives_the_same_bits(data: st.DataObject) -> None:
    bits = st.sampled_from([0x0, 0x80000000, 0x3F800000, 0xBF800000, 0x7FC00000, 0x7F800000, 0x1, 0xFFC00001])
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    count = int(torch.tensor(shape).prod())
    words = torch.tensor(data.draw(st.lists(bits, min_size=count, max_size=count)), dtype=torch.int64)
    tensor = (words - ((words >> 31) << 32)).to(torch.int32).view(torch.float32).reshape(shape)
    for one in [*codebooks(tensor), *discover({"w": tensor}).values()]:
        assert (to_words(one.value()) == to_words(tensor)).all()


def test_a_grid_that_a_model_carries_is_written_as_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    grid = WeightGrid(bits=8, step=torch.rand(32) / 100 + 0.01)
    weight = model.get_parameter("0.weight")
    with torch.no_grad():
        weight.copy_(grid.value(grid.integers(weight), weight.dtype))
    put_grids_(model, Grids(weights={"0.weight": grid}))
    found = discover(contents(model, tmp_path / "x"))
    assert isinstance(found["0.weight"], Uniform) and torch.equal(found["0.weight"].value(), weight)
    es.encode(model, tmp_path / "x.esp", tensors=found)
    assert next(one for one in inspect(tmp_path / "x.esp").tensors if one.name == "0.weight").kind.startswith("uniform")


def test_a_clustered_model_is_smaller_by_what_is_found(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = es.cluster(nn.Sequential(nn.Linear(300, 100)), 3, per="channel")
    plain = es.encode(model, tmp_path / "plain.esp").bytes
    held = contents(model, tmp_path / "x")
    found = discover(held)
    assert isinstance(found["0.weight"], Codebook)
    assert es.encode(model, tmp_path / "found.esp", tensors=found).bytes < plain
    back = es.decode(tmp_path / "found.esp")
    assert all(torch.equal(back[name], tensor) for name, tensor in held.tensors.items())
