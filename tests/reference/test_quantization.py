"""Post-training quantization against brute force: folding, calibration, rounding, corrections, and their noise."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import espalier as es
from espalier.core import KindError, ModelError, QuantizationError, UnknownNameError
from espalier.graph.grids import Dynamic, Grid, WeightGrid, grids_of, off_grid, quantize_inputs_
from espalier.transforms import AdaRound, Quantization, fold_
from espalier.transforms.adaround import adaround
from espalier.transforms.bias_correction import correct_biases_
from espalier.transforms.calibration import Samples, input_grid, weight_grid
from espalier.transforms.layers import layers
from espalier.transforms.noise import Power, layer_powers


class Net(nn.Module):
    """Convolutions with and without bias, norms that can be folded and one that two read, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.na = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.c, self.nc = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6, affine=False)
        self.d, self.nd = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        for norm in (self.na, self.nb, self.nc, self.nd):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.3, 3)
            if norm.affine:
                nn.init.normal_(norm.weight, 1, 0.3)
                nn.init.normal_(norm.bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.na(self.a(x)))
        y = torch.relu(self.nb(self.b(y)) + y)
        z = self.d(torch.relu(self.nc(self.c(y))))
        return self.head((self.nd(z) + z).relu().mean((2, 3)))


X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
BATCHES = [(X[i : i + 16], torch.zeros(16)) for i in range(0, 64, 16)]


def test_folding_changes_nothing_but_the_factors() -> None:
    model = Net()
    before, folded = model(X), copy.deepcopy(model)
    pairs = fold_(folded, es.trace(folded, X[:2]))
    assert pairs == {"a": "na", "b": "nb", "c": "nc"}  # d's output has two readers
    assert torch.allclose(folded(X), before, atol=1e-5)
    x = torch.randn(2, 8, 4, 4)
    shift = (folded.na.bias - folded.na.running_mean).reshape(-1, 1, 1)
    assert torch.allclose(folded.na(x), x + shift, atol=1e-6)
    assert torch.allclose(folded.nb(x), x, atol=1e-6)  # b has a bias: all of it went there
    assert list(folded.state_dict()) == list(model.state_dict())


@settings(max_examples=15)
@given(seed=st.integers(0, 30), bits=st.integers(2, 8), offset=st.sampled_from([0.0, 1.0, -2.0]), relu=st.booleans())
def test_mse_calibration_is_near_the_best_of_all_ranges(seed: int, bits: int, offset: float, relu: bool) -> None:
    x = torch.randn(3000, generator=torch.Generator().manual_seed(seed)) + offset
    x = torch.cat([x, x[:3] * 6])
    x = x.relu() if relu else x
    samples = Samples()
    samples.add(x)
    numbers = samples.numbers
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))

    def error(grid: Grid) -> float:
        return float((grid.of(numbers) - numbers).square().sum())

    shares = torch.linspace(0.04, 1, 25).tolist()
    ranges = [(low * a, high * b) for a in (shares if low else [1.0]) for b in (shares if high else [1.0])]
    every = []
    for a, b in ranges:
        step = (b - a) / (2**bits - 1)
        zero = min(max(round(-a / step), 0), 2**bits - 1) if step else 0
        every.append(error(Grid(bits=bits, step=step, zero_point=zero)) if step else float("inf"))
    found = error(input_grid(samples, bits, "mse"))
    assert found <= error(input_grid(samples, bits, "minmax")) + 1e-4
    assert found <= 1.12 * min(every) + 1e-4


def test_ranges_of_calibration() -> None:
    samples = Samples()
    for part in torch.cat([torch.linspace(-1, 4, 5001), torch.tensor([100.0])]).split(1000):
        samples.add(part)
    whole = input_grid(samples, 8, "minmax")
    assert whole.step == pytest.approx(101 / 255) and whole.zero_point == round(255 / 101)
    most = input_grid(samples, 8, "percentile", percentile=99.0)
    assert most.step * 255 == pytest.approx(4 + 0.99 + 0.02, rel=0.05) and most.lowest == 0
    nothing = Samples()
    nothing.add(torch.zeros(5))
    assert input_grid(nothing, 8, "mse") == Grid(step=1.0)
    with pytest.raises(es.EspalierError, match="NaN"):
        nothing.add(torch.tensor([float("nan")]))


@settings(max_examples=25)
@given(bits=st.integers(2, 8), seed=st.integers(0, 20), axis=st.sampled_from([0, 1, None]))
def test_weight_steps_are_pytorchs_or_the_nearest(bits: int, seed: int, axis: int | None) -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
    dims = [d for d in range(4) if d != axis]
    widest = weight_grid(weight, bits, axis, "max")
    largest = weight.abs().amax(dims) if axis is not None else weight.abs().amax()
    assert torch.allclose(widest.step, largest / (2 ** (bits - 1) - 1))
    nearest = weight_grid(weight, bits, axis, "mse")

    def error(grid: WeightGrid) -> Tensor:
        wrong = (grid.value(grid.integers(weight), weight.dtype) - weight).square()
        return wrong.sum(dims) if axis is not None else wrong.sum()

    assert (error(nearest) <= error(widest)).all()
    finest = torch.stack(
        [
            error(WeightGrid(bits=bits, step=widest.step * share, axis=axis or 0))
            for share in torch.linspace(0.1, 1, 400).tolist()
        ]
    )
    assert (error(nearest) <= (1.1 if bits < 7 else 1.3) * finest.amin(0)).all()


def test_noise_is_what_it_is_by_hand() -> None:
    model, power = Net(), Power()
    power.add(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    assert power.db == pytest.approx(20.0)
    assert Power().db == 200 and layer_powers(model, [], {}, {}, []) == {}
    grid = weight_grid(model.b.weight, 4, 0, "max")
    value = grid.value(grid.integers(model.b.weight), torch.float32)
    made = Grid(bits=4, step=0.3)
    found = layer_powers(model, layers(model)[1:2], {"b.weight": value}, {"b": made}, [X[:8], X[8:]])["b"]
    y = torch.relu(model.na(model.a(X)))
    clean = model.b(y).detach()
    noisy = nn.functional.conv2d(made.of(y), value, model.b.bias, padding=1, groups=2).detach()
    assert found.db == pytest.approx(
        float(10 * torch.log10(clean.square().sum() / (noisy - clean).square().sum())), abs=1e-3
    )


def test_the_result_is_on_its_grids_and_says_how_noisy_it_is() -> None:
    model = Net()
    state = copy.deepcopy(model.state_dict())
    found = es.quantize(model, BATCHES)
    small, grids = found.model, grids_of(found.model)
    assert type(small) is Net and all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert grids.inputs.keys() == {"a", "b", "c", "d", "head"} and not list(off_grid(grids, small))
    assert {type(one) for one in grids.inputs.values()} == {Grid}
    clean, noisy = model(X).detach(), small(X).detach()
    assert found.sqnr_db == pytest.approx(
        float(10 * (clean.square().sum() / (noisy - clean).square().sum()).log10()), abs=0.1
    )
    assert found.sqnr_db > 30 and [row.name for row in found.layers] == ["a", "b", "c", "d", "head"]
    assert all(row.sqnr_db > 30 and row.packed_bytes < row.dense_bytes for row in found.layers)
    fewer = es.quantize(model, BATCHES, Quantization(weight_bits=4, bits={"head": 8}, keep=("a",), min_sqnr_db=0))
    assert fewer.sqnr_db < found.sqnr_db and "a" not in grids_of(fewer.model).inputs
    assert [(row.weight_bits, row.input_bits) for row in fewer.layers] == [(4, 8), (4, 8), (4, 8), (8, 8)]
    weights = es.quantize(model, BATCHES, Quantization(input_bits=None))
    assert not grids_of(weights.model).inputs and weights.sqnr_db > found.sqnr_db
    assert es.quantize(small, BATCHES).sqnr_db > 30  # of a quantized one: its grids are put on anew


def test_a_silently_bad_result_is_refused_with_the_layer_named() -> None:
    class Tokens(nn.Module):
        """A few features are hundreds of times larger than the others, as in a transformer."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.up(x)))

    x = torch.randn(8, 10, 32)
    x[:, 0] *= 3000  # one token, as the class token's neighbours do
    data = [(x, None)]
    model = Tokens()
    static = Quantization(inputs="static", calibration="mse", input_bits=6)
    few = [(x[:, 1:], None)]
    with pytest.raises(QuantizationError) as error:
        es.quantize(model, [(x[:, 1:] * torch.logspace(-3, 3, 32), None)], Quantization(weight_bits=2, inputs="static"))
    for text in ("dB of signal to noise, and 10 are", "up (", "inputs = 'dynamic'", "keep = ['", "min_sqnr_db = "):
        assert text in str(error.value)
    dynamic = es.quantize(model, data)
    assert {type(one) for one in grids_of(dynamic.model).inputs.values()} == {Dynamic}
    loose = es.quantize(model, data, Quantization(weight_bits=2, inputs="static", min_sqnr_db=-50))
    assert loose.sqnr_db < dynamic.sqnr_db
    small_tokens = [es.quantize(model, data, one).model(few[0][0]) for one in (static, Quantization(input_bits=6))]
    clean = model(few[0][0])
    off, near = ((one - clean).square().mean() for one in small_tokens)
    assert off > 3 * near  # the network's own outputs hide what became of the small tokens


def test_bias_correction_brings_the_means_back() -> None:
    model = Net()
    fold = copy.deepcopy(model)
    norms = fold_(fold, es.trace(fold, X[:2]))
    result = copy.deepcopy(fold)
    with torch.no_grad():
        for layer in layers(result):
            grid = weight_grid(result.get_parameter(layer.weight), 3, 0, "mse")
            result.get_parameter(layer.weight).copy_(
                grid.value(grid.integers(result.get_parameter(layer.weight)), torch.float32)
            )
    quantize_inputs_(result, {"b": Grid(bits=4, step=0.4)})
    means = [one(X).mean(0) for one in (fold, result)]
    changed = correct_biases_(result, fold, layers(result), norms, [X[:32], X[32:]])
    assert changed.keys() == {"a", "b", "c", "d", "head"} and min(changed.values()) > 0
    seen: dict[str, Tensor] = {}
    for name, one in (("wanted", fold), ("found", result)):
        for path in ("na", "nb", "nc", "d", "head"):
            one.get_submodule(path).register_forward_hook(
                lambda m, a, y, key=f"{name} {path}": seen.update({key: y.transpose(0, 1).flatten(1).mean(1)})
            )
        one(X)
    for path in ("na", "nb", "nc", "d", "head"):
        assert torch.allclose(seen[f"wanted {path}"], seen[f"found {path}"], atol=1e-4)
    assert (means[0] - means[1]).abs().max() > 0.01


def test_adaround_rounds_for_the_output_and_not_for_the_weight() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(512, 24) @ torch.randn(24, 24)  # correlated: the nearest weights are not the best
    how = Quantization(weight_bits=3, input_bits=None, correct_biases=False, min_sqnr_db=-99)
    near = es.quantize(model, [(x, None)], how)
    learned = AdaRound(steps=400)
    best = es.quantize(model, [(x, None)], Quantization(**{**vars(how), "rounding": learned}))
    assert not list(off_grid(grids_of(best.model), best.model))
    assert best.sqnr_db > near.sqnr_db + 1 and best.layers[0].sqnr_db > near.layers[0].sqnr_db + 1
    grids = grids_of(best.model)
    for index in (0, 2):
        down = (model[index].weight / grids.weights[f"{index}.weight"].over(2)).floor()
        up = grids.weights[f"{index}.weight"].integers(best.model[index].weight) - down
        inside = (down >= -4) & (down < 3)
        assert ((up[inside] == 0) | (up[inside] == 1)).all()
    again = adaround(model, layers(model), grids, [x], learned)
    assert all(torch.equal(value, best.model.get_parameter(name)) for name, value in again.items())


def test_mistakes_are_named() -> None:
    with pytest.raises(KindError, match="pairs"):
        es.quantize(Net(), [1, 2])
    with pytest.raises(KindError, match="there are none"):
        es.quantize(Net(), [])
    with pytest.raises(UnknownNameError, match="'heda'. Did you mean 'head'"):
        es.quantize(Net(), BATCHES, Quantization(keep=("heda",)))
    with pytest.raises(UnknownNameError, match="'heda'"):
        es.quantize(Net(), BATCHES, Quantization(bits={"heda": 4}))
    with pytest.raises(ModelError, match="does not run"):
        es.quantize(Net(), [(torch.randn(2, 4, 8, 8), None)])
    with pytest.raises(ModelError, match="no convolution"):
        es.quantize(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), [(torch.randn(4, 3), None)])


class Many(nn.Module):
    """Every kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Embedding(11, 8)
        self.attend, self.memory = nn.MultiheadAttention(8, 2, batch_first=True), nn.LSTM(8, 8, batch_first=True)
        self.up, self.out = nn.ConvTranspose1d(8, 6, 3), nn.Linear(8, 11, bias=False)
        self.out.weight = self.look.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        y = self.look(tokens)
        y = self.memory(self.attend(y, y, y)[0])[0]
        return self.out(y), self.up(y.transpose(1, 2))


def test_every_kind_of_layer() -> None:
    model = Many().eval()
    found = es.quantize(model, [(torch.randint(0, 11, (4, 6)), None)])
    rows = {row.name: row.inputs for row in found.layers}
    assert rows.keys() == {"look", "attend", "attend.out_proj", "memory", "up", "out"}
    assert rows["out"] == "dynamic" and rows["up"] == "static" and rows["memory"] == rows["look"] == ""
    grids = grids_of(found.model)
    assert grids.weights["up.weight"].axis == 1 and len(grids.weights["up.weight"].step) == 6
    assert "out.weight" not in grids.weights and found.model.out.weight is found.model.look.weight
    assert found.sqnr_db > 25
