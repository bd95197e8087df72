"""Grids: a model's inputs are quantized as it says, its weights lie where it says, and nothing forgets it silently."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import espalier as es
from espalier.coding import Uniform
from espalier.core import CutError, FileError, GridError, KindError
from espalier.graph.file_size import FileSize
from espalier.graph.grids import (
    Dynamic,
    Grid,
    Grids,
    Sign,
    WeightGrid,
    grids_of,
    off_grid,
    put_grids_,
    quantize_inputs_,
    unquantize_,
)

from .quantized import EXAMPLE, Small, grid_of, quantized, snapped


def by_hand(model: Small) -> torch.Tensor:
    """Return the output with every input quantized by an expression of its own."""
    x = torch.fake_quantize_per_tensor_affine(EXAMPLE, 0.03, 121, 0, 255)
    y = torch.relu(model.norm(nn.functional.conv2d(x, model.first.weight, model.first.bias, padding=1)))
    z = torch.fake_quantize_per_tensor_affine(y, 0.3, 0, -8, 7)
    y = y + nn.functional.conv2d(z, model.second.weight, model.second.bias, padding=1)
    signs = torch.where(y >= 0, 1.0, -1.0)
    factor = nn.functional.avg_pool2d(y.abs().mean(1, keepdim=True), 3, 2, 1, count_include_pad=True)
    z = nn.functional.conv2d(signs, model.third.weight, None, 2, 1) * factor + model.third.bias.reshape(-1, 1, 1)
    z = torch.relu(z).flatten(1)
    step = z.amax(1, keepdim=True) / 255  # nothing is negative after relu
    return nn.functional.linear((z / step).round().clamp(0, 255) * step, model.head.weight, model.head.bias)


def test_inputs_are_quantized_as_the_model_says() -> None:
    model = quantized()
    assert torch.allclose(model(EXAMPLE), by_hand(model), atol=1e-6)
    plain = unquantize_(copy.deepcopy(model))
    assert not grids_of(plain) and not torch.allclose(plain(EXAMPLE), model(EXAMPLE), atol=1e-2)
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in plain.modules())
    assert all(not m._forward_pre_hooks_with_kwargs for m in plain.modules())


def test_copies_carry_them_and_put_on_others_of_their_own() -> None:
    model = quantized()
    twin = copy.deepcopy(model)
    assert grids_of(twin) is grids_of(model) and torch.equal(twin(EXAMPLE), model(EXAMPLE))
    quantize_inputs_(twin, {"first": Grid(bits=2, step=1.0)})
    assert torch.allclose(model(EXAMPLE), by_hand(model), atol=1e-6)
    assert not torch.allclose(twin(EXAMPLE), model(EXAMPLE), atol=1e-2)
    assert grids_of(twin).inputs.keys() == grids_of(model).inputs.keys()
    put_grids_(twin, Grids())
    assert not grids_of(twin).inputs and torch.equal(twin(EXAMPLE), unquantize_(twin)(EXAMPLE))


@pytest.mark.parametrize("inplace", [True, False])
def test_a_cut_keeps_the_grids_of_what_it_keeps(inplace: bool) -> None:
    model = quantized()
    graph = es.trace(model, EXAMPLE)
    assert [op.name for op in graph.records[0].ops] == [op.name for op in es.trace(Small(), EXAMPLE).records[0].ops]
    plan = es.plan(graph, es.criteria.random(model, graph, seed=1), es.Budget(macs=0.4))
    before = {name: grid.integers(model.get_parameter(name)) for name, grid in grids_of(model).weights.items()}
    small = (es.cut_ if inplace else es.cut)(copy.deepcopy(model), graph, plan, prove=True)
    assert small.espalier_proof == "float64"
    grids = grids_of(small)
    assert grids.inputs == grids_of(model).inputs and not list(off_grid(grids, small))
    slices = small.espalier_surgery.slices
    for name, grid in grids.weights.items():
        whole = before[name]
        for dim in range(whole.dim()):
            if (name, dim) in slices:
                whole = whole.index_select(dim, torch.tensor(slices[name, dim].keep))
        assert torch.equal(grid.integers(small.get_parameter(name)), whole)
    plain = es.cut(unquantize_(copy.deepcopy(model)), graph, plan)
    put_grids_(plain, grids)
    assert torch.equal(plain(EXAMPLE), small(EXAMPLE))


def test_a_cut_that_scales_rows_scales_their_steps() -> None:
    """A head's dimension is cut: what Python divides by its square root is made up for in the weights."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k = self.q(x), self.k(x)
            return self.o(torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, -1) @ self.v(x))

    model, x = Attention().eval(), torch.randn(2, 5, 8)
    for axis in (0, None, 1):
        one = copy.deepcopy(model)
        grids = {f"{name}.weight": grid_of(one.get_parameter(f"{name}.weight"), 4, axis=axis) for name in "qk"}
        for name, grid in grids.items():
            snapped(one.get_parameter(name), grid)
        put_grids_(one, Grids(weights=grids))
        graph = es.trace(one, x)
        assert any(found.rows for found in graph.rescaled)
        plan = es.plan(graph, es.criteria.magnitude(one, graph), es.Budget(params=0.7))
        if axis == 1:
            with pytest.warns(es.core.EspalierWarning, match="lies on no grid any more"):
                small = es.cut(one, graph, plan)
            assert len(grids_of(small).weights) == 1
            continue
        small = es.cut(one, graph, plan)
        assert small.q.out_features < 8
        assert grids_of(small).weights.keys() == grids.keys() and not list(off_grid(grids_of(small), small))
        program = es.to_graph_module(one, graph, plan)
        assert not list(off_grid(grids_of(program), program)) and grids_of(program).weights
        assert torch.allclose(program(x), small(x), atol=1e-5)


@pytest.mark.parametrize("suffix", ["safetensors", "esp"])
def test_files_bring_them_back(suffix: str, tmp_path: Path) -> None:
    model = quantized()
    graph = es.trace(model, EXAMPLE)
    small = es.cut(model, graph, es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5)))
    path = tmp_path / f"small.{suffix}"
    (es.save if suffix == "safetensors" else es.encode)(small, path)
    read = es.load if suffix == "safetensors" else es.decode
    for original in (Small(), quantized(signs=False), Small):
        back = read(path, original)
        assert grids_of(back).to_data() == grids_of(small).to_data() and torch.equal(back(EXAMPLE), small(EXAMPLE))
    plain = unquantize_(small)
    (es.save if suffix == "safetensors" else es.encode)(plain, path)
    assert not grids_of(read(path, quantized())) and torch.equal(read(path, quantized())(EXAMPLE), plain(EXAMPLE))


def test_the_size_of_the_file_is_known_before(tmp_path: Path) -> None:
    model = quantized()
    graph = es.trace(model, EXAMPLE)
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(size_ratio=0.5))
    es.save(es.cut(model, graph, plan, prove=False), tmp_path / "small.safetensors")
    assert FileSize(graph).of_plan(plan) == (tmp_path / "small.safetensors").stat().st_size


def test_weights_on_their_grids_are_coded_as_integers(tmp_path: Path) -> None:
    model = quantized()
    made = {
        name: Uniform(integers=grid.integers(model.get_parameter(name)), step=grid.step, axis=grid.axis)
        for name, grid in grids_of(model).weights.items()
    }
    es.encode(model, tmp_path / "a.esp", tensors=made)  # which refuses what is not the same bit by bit
    assert torch.equal(es.decode(tmp_path / "a.esp", Small())(EXAMPLE), model(EXAMPLE))


def test_weights_that_left_their_grids_are_not_written_as_if_they_had_not(tmp_path: Path) -> None:
    model = quantized()
    with torch.no_grad():
        model.head.weight[0, 0] += 1e-3
    for write in (es.save, es.encode):
        with pytest.raises(FileError, match=r"'head.weight' does not lie on its grid.*unquantize_"):
            write(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    es.save(unquantize_(model), tmp_path / "model")


def test_a_tied_weight_has_one_grid_under_its_first_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    grid = grid_of(model[0].weight)
    snapped(model[0].weight, grid)
    put_grids_(model, Grids(weights={"1.weight": grid}))
    assert grids_of(model).weights.keys() == {"0.weight"}


def test_what_does_not_fit_is_refused_with_every_mistake_and_nothing_is_touched() -> None:
    model = quantized()
    before, grids = model(EXAMPLE), grids_of(model)
    wide = WeightGrid(bits=4, step=torch.ones(9))
    wrong = Grids({"frist": Grid(step=1)}, {"second.weight": wide, "head.wieght": wide})
    with pytest.raises(GridError) as error:
        put_grids_(model, wrong)
    for text in ("'frist'. Did you mean 'first'", "9 steps of dimension 0", "'head.wieght'. Did you mean"):
        assert text in str(error.value)
    with pytest.raises(GridError, match="does not lie on its grid"):
        put_grids_(model, Grids(weights={"norm.weight": WeightGrid(bits=2, step=torch.tensor(0.3))}))
    with pytest.raises(GridError, match="steps of torch.float64"):
        put_grids_(model, Grids(weights={"norm.weight": WeightGrid(bits=2, step=torch.tensor(1.0).double())}))
    with pytest.raises(GridError, match="not in a BatchNorm2d"):
        quantize_inputs_(model, {"first": Grid(step=1), "norm": Sign(scaled=True)})
    with pytest.raises(KindError):
        quantize_inputs_({}, {})  # type: ignore[arg-type]
    assert grids_of(model) is grids and torch.equal(model(EXAMPLE), before)
    with pytest.raises(CutError, match="inputs are quantized"):
        es.to_graph_module(model, es.trace(model, EXAMPLE))
    lookup = quantize_inputs_(nn.Sequential(nn.Embedding(3, 2)), {"0": Dynamic()})
    with pytest.raises(GridError, match="no tensor of floats"):
        lookup(torch.tensor([1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grid(bits=1, step=1.0),
        lambda: Grid(bits=17, step=1.0),
        lambda: Grid(bits=True, step=1.0),
        lambda: Grid(step=0.0),
        lambda: Grid(step=float("nan")),
        lambda: Grid(step=float("inf")),
        lambda: Grid(step=1e39),
        lambda: Grid(step=1e-46),
        lambda: Grid(step=-1.0),
        lambda: Grid(step="1"),  # type: ignore[arg-type]
        lambda: Grid(step=1.0, zero_point=256),
        lambda: Grid(step=1.0, zero_point=-1),
        lambda: Grid(step=1.0, zero_point=128, signed=True),
        lambda: Grid(step=1.0, zero_point=1.0),  # type: ignore[arg-type]
        lambda: Grid(step=1.0, signed=1),  # type: ignore[arg-type]
        lambda: Dynamic(per="row"),  # type: ignore[arg-type]
        lambda: Sign(scaled=1),  # type: ignore[arg-type]
        lambda: WeightGrid(bits=1, step=torch.tensor(1.0)),
        lambda: WeightGrid(bits=2, step=torch.tensor(0.0)),
        lambda: WeightGrid(bits=2, step=torch.tensor([1.0, float("nan")])),
        lambda: WeightGrid(bits=2, step=torch.tensor(1)),
        lambda: WeightGrid(bits=2, step=torch.ones(2, 2)),
        lambda: WeightGrid(bits=2, step=torch.ones(2), axis=-1),
        lambda: WeightGrid(bits=2, step=torch.tensor(1.0), axis=1),
    ],
)
def test_what_is_no_grid_is_refused(make) -> None:
    with pytest.raises(GridError):
        make()


def test_exports_compute_the_same() -> None:
    model = quantized()
    program = torch.export.export(model, (EXAMPLE,))
    assert torch.allclose(program.module()(EXAMPLE), model(EXAMPLE), atol=1e-5)
    names = {node.target.__name__ for node in program.graph.nodes if node.op == "call_function"}
    assert "round.default" in names and not any("fake" in name for name in names)
