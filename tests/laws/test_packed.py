"""A packed network gives the very numbers that the network itself gives, from a thirty-second of the bytes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import espalier as es
from espalier.core import KindError, ModelError
from espalier.graph.grids import Sign, grids_of, quantize_inputs_
from espalier.methods.binary_weights import exact, sign
from espalier.transforms import packed, popcount
from espalier.transforms.packed_layers import PopcountConv2d, PopcountLinear, UnpackedForCall
from espalier.transforms.packed_weights import few_values, looked_up, pack, unpack, unpacked


def same(model: nn.Module, *shape: int, seed: int = 0) -> nn.Module:
    """Return the packed form of a network, which has answered as the network itself does, bit for bit."""
    small = packed(model)
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    x.view(-1)[::7] = 0.0  # zero is +1, from either side
    x.view(-1)[3::14] = -0.0
    with torch.no_grad():
        wanted, found = model.eval()(x), small(x)
    assert torch.equal(wanted, found) and wanted.shape == found.shape
    assert not torch.equal(wanted, torch.zeros_like(wanted))
    return small


@torch.no_grad()
def binarised(layer: nn.Module, *, scaled: bool) -> nn.Module:
    """Return a layer of random plus and minus ones, or scales, one a filter."""
    weight = layer.weight
    means = weight.abs().mean(tuple(range(1, weight.dim())), keepdim=True)
    scale = exact(means, weight[0].numel()) if scaled else torch.ones(())
    weight.copy_(scale * sign(weight))
    return layer


def bytes_of(model: nn.Module) -> int:
    return sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()) if not one.is_meta)


@pytest.mark.parametrize("name", ["binary_net_mlp_digits", "xnor_cnn", "xnor_cnn_cifar"])
def test_the_papers_networks(name: str) -> None:
    torch.manual_seed(0)
    model = es.model(f"espalier:{name}")
    layers = [path for path, one in model.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    middle = layers if "net" in name else layers[1:-1]
    for path in middle:
        binarised(model.get_submodule(path), scaled="xnor" in name)
    for one in model.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            one.running_mean.normal_()
            one.running_var.uniform_(0.5, 2)
    quantize_inputs_(model, {path: Sign(scaled="xnor" in name) for path in middle if path != layers[0]})
    before = copy.deepcopy(model.state_dict())
    small = same(model, 3, *es.zoo.input_shape(f"espalier:{name}"))
    counted = [one for one in small.modules() if isinstance(one, PopcountLinear | PopcountConv2d)]
    assert len(counted) == len(set(middle) - {layers[0]})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not grids_of(small).inputs and grids_of(model).inputs


@given(
    channels=st.integers(1, 70),
    filters=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    scaled=st.booleans(),
)
def test_convolutions_of_signs(
    channels: int,
    filters: int,
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    scaled: bool,
) -> None:
    torch.manual_seed(channels)
    layer = nn.Conv2d(channels, filters, kernel, stride, padding, dilation, bias=False)
    model = nn.Sequential(binarised(layer, scaled=scaled))
    quantize_inputs_(model, {"0": Sign(scaled=scaled)})
    assert isinstance(same(model, 2, channels, 7, 6)[0], PopcountConv2d)


@given(st.integers(1, 200), st.integers(1, 9), st.booleans(), st.booleans())
def test_linear_layers_of_signs(inputs: int, outputs: int, scaled: bool, deep: bool) -> None:
    torch.manual_seed(inputs)
    model = nn.Sequential(binarised(nn.Linear(inputs, outputs, bias=False), scaled=scaled))
    quantize_inputs_(model, {"0": Sign(scaled=scaled)})
    small = same(model, *((2, 3) if deep else (4,)), inputs)
    assert isinstance(small[0], PopcountLinear)


def test_an_image_of_another_size_has_another_border() -> None:
    model = nn.Sequential(binarised(nn.Conv2d(5, 4, 3, padding=1, bias=False), scaled=False))
    quantize_inputs_(model, {"0": Sign()})
    small = packed(model)
    for size in (5, 8, 5):
        x = torch.randn(2, 5, size, size)
        assert torch.equal(small(x), model(x))


OTHERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(50, 7), (3, 50)),
    "no bias": (nn.Linear(50, 7, bias=False), (3, 50)),
    "conv1d": (nn.Conv1d(5, 4, 3, padding=1), (2, 5, 9)),
    "conv3d": (nn.Conv3d(3, 4, 3, padding=1), (2, 3, 4, 5, 5)),
    "grouped": (nn.Conv2d(8, 8, 3, groups=4), (2, 8, 6, 6)),
    "reflected": (nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)),
    "by name": (nn.Conv2d(4, 8, 3, padding="same"), (2, 4, 6, 6)),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("signs", [True, False])
def test_other_layers_are_unpacked_for_the_call(name: str, signs: bool) -> None:
    layer, shape = OTHERS[name]
    model = nn.Sequential(binarised(copy.deepcopy(layer), scaled=True))
    if signs:
        quantize_inputs_(model, {"0": Sign()})
    small = same(model, *shape)
    assert isinstance(small[0], PopcountLinear if signs and name == "no bias" else UnpackedForCall)


@pytest.mark.parametrize("signs", [True, False])
def test_ternary_weights_take_two_bits(signs: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 10, 1))
    with torch.no_grad():
        weight = model[0].weight
        weight.copy_(0.7 * (weight > 0.01) - 0.3 * (weight < -0.02))
    if signs:
        quantize_inputs_(model, {"0": Sign()})
    small = same(model, 2, 64, 6, 6)
    assert isinstance(small[0], UnpackedForCall) and small[0].bits == 2
    assert isinstance(small[2], nn.Conv2d)  # of many values: it is what it was


@pytest.mark.parametrize(("scale", "bias"), [(0.1, False), (1.0, True), (0.1, True)])  # 0.1 has 24 bits in float32
@pytest.mark.parametrize("scaled", [True, False])
def test_sums_that_would_be_rounded_are_counted_only_when_asked(scale: float, bias: bool, scaled: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 5, bias=bias), nn.Unflatten(1, (5, 1, 1)), nn.Conv2d(5, 4, 1, bias=bias))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(scale * sign(layer.weight))
    quantize_inputs_(model, {"0": Sign(scaled=scaled), "2": Sign(scaled=scaled)})
    small = same(model, 4, 200)
    assert isinstance(small[0], UnpackedForCall) and isinstance(small[2], UnpackedForCall)
    near, x = packed(model, exact=False), torch.randn(4, 200)
    assert isinstance(near[0], PopcountLinear) and isinstance(near[2], PopcountConv2d)
    torch.testing.assert_close(near(x), model(x).detach(), rtol=1e-5, atol=1e-5)


def test_filters_of_one_value_and_of_zeros() -> None:
    model = nn.Sequential(binarised(nn.Linear(40, 4, bias=False), scaled=False))
    with torch.no_grad():
        model[0].weight[0], model[0].weight[1], model[0].weight[2] = 1.0, -1.0, 0.0
    quantize_inputs_(model, {"0": Sign()})
    assert isinstance(same(model, 4, 40)[0], PopcountLinear)


def test_memory_is_a_thirty_second() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(binarised(nn.Linear(1024, 1024, bias=False), scaled=False) for _ in range(3)))
    quantize_inputs_(model, {"1": Sign(), "2": Sign()})
    small = packed(model)
    assert bytes_of(model) / bytes_of(small) > 31.9
    assert not any(one.requires_grad for one in small.parameters())


def test_both_kernels_count_the_same() -> None:
    numbers = np.random.default_rng(0)
    for words in (1, 3, 16):
        rows = numbers.integers(0, 256, (5, 8 * words), dtype=np.uint8)
        others = numbers.integers(0, 256, (7, 8 * words), dtype=np.uint8)
        slow = [[sum(int(a ^ b).bit_count() for a, b in zip(r, o, strict=True)) for o in others] for r in rows]
        assert popcount.by_numpy(rows, others).tolist() == slow
        if popcount.kernel() == "faiss":
            assert popcount.by_faiss(rows, others).tolist() == slow


def test_without_faiss_numpy_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(popcount.importlib.util, "find_spec", lambda name: None)
    popcount._kernel.cache_clear()
    try:
        assert popcount._kernel() is popcount.by_numpy
        model = nn.Sequential(binarised(nn.Linear(100, 9, bias=False), scaled=True))
        quantize_inputs_(model, {"0": Sign(scaled=True)})
        same(model, 4, 100)
    finally:
        monkeypatch.undo()
        popcount._kernel.cache_clear()


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 4), st.integers(0, 1000))
def test_few_values_are_found_and_packed(filters: int, count: int, values: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    book = torch.randn(filters, values, generator=generator)
    weight = book.gather(1, torch.randint(values, (filters, count), generator=generator))
    made = few_values(weight)
    assert made is not None and made.bits == (1 if max(len(row.unique()) for row in weight) <= 2 else 2)
    symbols = unpack(pack(made.symbols, made.bits), made.bits, count)
    assert torch.equal(looked_up(symbols, made.values), weight)
    assert torch.equal(unpacked(pack(made.symbols, made.bits), made.values, count), weight)
    assert few_values(torch.randn(3, 9, generator=generator)) is None


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(ModelError, match="no linear layer or convolution of this network has two to four values"):
        packed(nn.Sequential(nn.Linear(20, 5), nn.ReLU()))
    with pytest.raises(KindError, match="packed takes an nn.Module"):
        packed({"weight": torch.ones(3)})  # type: ignore[arg-type]


def test_the_front_door_has_it() -> None:
    layer: Tensor = binarised(nn.Linear(64, 3), scaled=False)  # type: ignore[assignment]
    assert isinstance(es.packed(layer), UnpackedForCall)
