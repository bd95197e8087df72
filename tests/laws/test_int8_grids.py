"""Laws of exports with a model's own grids: the runtime's integers are those that PyTorch simulated."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from espalier.backends import RUNNERS, ExportError, Int8, export, files
from espalier.backends.agreement import compared
from espalier.backends.int8.grids import carries_grids, explicit
from espalier.backends.int8.runners import IN_INT8
from espalier.graph.grids import Grid, Grids, WeightGrid, grids_of, put_grids_

from .int8_networks import residual

SUFFIXES = [one for one in files.WRITERS if one != ".pte"]  # ExecuTorch has no such operators: it is refused


@pytest.fixture(scope="module")
def quantized() -> tuple[nn.Module, list[Tensor]]:
    """Return a network whose first and last layers have grids that no calibration would choose, and its inputs."""
    model, batches = residual()
    weights, inputs = {}, {"stem": Grid(step=0.004), "head": Grid(step=0.011, zero_point=3)}
    for name in inputs:
        weight = model.get_submodule(name).weight
        steps = weight.detach().abs().flatten(1).amax(1) / 99
        grid = WeightGrid(bits=8, step=steps)
        weights[f"{name}.weight"] = grid
        with torch.no_grad():
            weight.copy_(grid.value(grid.integers(weight), weight.dtype))
    return put_grids_(model, Grids(inputs, weights)), batches


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_computes_what_was_simulated(suffix: str, quantized: Any, tmp_path: Path) -> None:
    model, batches = quantized
    reason = files.unavailable(suffix, int8=False)
    if reason:
        pytest.skip(reason)
    found = export(model, batches[0][:2], tmp_path / f"m{suffix}", int8=Int8(batches=batches))
    assert found.sqnr_db > 45, "a few numbers fall on the other side of a tie; calibration of its own would say 35"


def test_scales_and_zero_points_are_the_models_own(quantized: Any, tmp_path: Path) -> None:
    model, batches = quantized
    export(model, batches[0][:1], tmp_path / "m.onnx", int8=Int8())
    held = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "m.onnx").graph.initializer}
    grids = grids_of(model)
    for name, grid in grids.weights.items():
        integers = grid.integers(model.get_parameter(name)).numpy()
        assert any(
            one.dtype == "int8" and one.shape == integers.shape and (one == integers).all() for one in held.values()
        )
        assert not [one for one in held.values() if one.dtype == "float32" and one.shape == integers.shape]
    nodes = {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= nodes


def test_runners_take_the_grids(quantized: Any) -> None:
    model, batches = quantized
    run = IN_INT8["onnxruntime-int8"].prepare(model, batches[0][:2], threads=1)
    with torch.no_grad():
        assert compared([model(batches[0][:2])], run()).sqnr_db > 45
    assert RUNNERS["onnxruntime-int8"].prepare(model, batches[0][:2], threads=1).kernels()


def test_a_wrong_step_is_seen(quantized: Any) -> None:
    model, batches = quantized
    wrong = copy.deepcopy(model)
    grids = grids_of(model)
    moved = put_grids_(wrong, Grids({**grids.inputs, "head": Grid(step=0.02, zero_point=3)}, grids.weights))
    with torch.no_grad():
        assert compared([model(batches[0])], [explicit(model)(batches[0])]).sqnr_db > 100
        assert compared([model(batches[0])], [explicit(moved)(batches[0])]).sqnr_db < 45


def test_what_has_no_grid_of_eight_bits_is_refused() -> None:
    layer = nn.Linear(4, 4)
    grid = WeightGrid(bits=12, step=torch.tensor(0.25))
    with torch.no_grad():
        layer.weight.fill_(0.5)
    model = put_grids_(nn.Sequential(layer), Grids({}, {"0.weight": grid}))
    assert carries_grids(model) and not carries_grids(nn.Linear(2, 2))
    with pytest.raises(ExportError, match="none of its layers has a weight of at most eight bits"):
        explicit(model)
