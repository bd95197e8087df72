"""Laws of int8: every runtime computes nearly what PyTorch does, in a quarter of the bytes, or is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from espalier.backends import RUNNERS, BackendError, ExportError, Int8, bytes_of, export, files, onnx_file, runner
from espalier.backends.agreement import compared
from espalier.backends.int8.runners import IN_INT8
from espalier.backends.int8.scheme import scheme_of
from espalier.backends.int8.settings import pieces, split
from espalier.backends.int8.worst import layers_sqnr

from .int8_networks import Attention, Outliers, residual

# ExecuTorch and torch.compile take half a minute
SUFFIXES = [pytest.param(one, marks=pytest.mark.slow) if one in (".pt2", ".pte") else one for one in files.WRITERS]
NAMES = [name if name == "onnxruntime-int8" else pytest.param(name, marks=pytest.mark.slow) for name in IN_INT8]
# what each runtime calls its kernels for integers
KERNELS = {"onnxruntime-int8": "QLinearConv", "openvino-int8": "I8", "compile-int8": "u8", "executorch-int8": "Xnnpack"}


def needs(reason: str | None) -> None:
    """Skip where a package of an extra is not installed, and say which."""
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, list[Tensor]]:
    return residual()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_near_pytorch_and_a_quarter_of_its_size(suffix: str, trained: Any, tmp_path: Path) -> None:
    model, batches = trained
    needs(files.unavailable(suffix, int8=True))
    example = batches[0][:2]
    found = export(model, example, tmp_path / f"int8{suffix}", int8=Int8(batches=batches, samples=32))
    assert 25 < found.sqnr_db < 60, "so near that nothing can have been rounded, or too far"
    export(model, example, tmp_path / f"float32{suffix}")
    small, large = (bytes_of(tmp_path / f"{name}{suffix}") for name in ("int8", "float32"))
    graph = 150_000 if suffix in (".xml", ".pt2") else 20_000  # its own bytes: words, not weights
    assert small - graph < 0.26 * large, (small, large)


@pytest.mark.parametrize("name", NAMES)
def test_a_runner_computes_in_integers(name: str, trained: Any) -> None:
    model, batches = trained
    needs(RUNNERS[name].unavailable())
    ready = IN_INT8[name].calibrated(batches).prepare(model, batches[0][:2], threads=1)
    with torch.no_grad():
        for one in (batches[0][:2], batches[1][2:4]):
            assert 25 < compared([model(one)], ready.on(one)).sqnr_db < 60
    assert any(KERNELS[name] in kernel for kernel in ready.kernels()), ready.kernels()


def test_noise_calibrates_what_is_only_timed(trained: Any) -> None:
    model, batches = trained
    assert len(runner("onnxruntime-int8").prepare(model, batches[0][:1], threads=1)()) == 1


def test_a_result_that_is_too_far_is_refused_with_the_layer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, batches = Outliers().eval(), [torch.randn(64, 64)]
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an older export")
    with pytest.raises(ExportError, match=r"SQNR -?\d.* dB \(at least 15 .*'spoilt' loses most") as caught:
        export(model, batches[0][:1], path, int8=Int8(batches=batches, scheme="static"))
    assert "Nothing was written" in str(caught.value)
    assert path.read_bytes() == b"an older export" and len(list(tmp_path.iterdir())) == 1
    assert list(layers_sqnr(model, batches, batches)) == ["spoilt", "good"]
    assert export(model, batches[0][:1], path, int8=Int8(batches=batches, least_sqnr_db=-100)).sqnr_db < 15


def test_layers_alone_leave_the_model_as_it_was(trained: Any) -> None:
    model, batches = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = layers_sqnr(model, batches, batches[:2])
    assert set(found) == {"stem", "first", "second", "head"} and all(25 < one < 60 for one in found.values())
    assert list(found.values()) == sorted(found.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_scheme_follows_the_network() -> None:
    model, batches = residual()
    assert scheme_of(model, batches[0][:1], Int8()) == "static"
    assert scheme_of(model, batches[0][:1], Int8(scheme="dynamic")) == "dynamic"
    assert scheme_of(Attention(), torch.randn(1, 5, 32), Int8()) == "dynamic"
    assert scheme_of(nn.LSTM(8, 8), torch.randn(3, 1, 8), Int8()) == "dynamic"
    assert scheme_of(nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1)), torch.randn(1, 8), Int8()) == "static"


def test_dynamic_ranges_need_no_luck_with_calibration(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Attention().eval()
    batches = [torch.randn(8, 5, 32), 30 * torch.randn(8, 5, 32)]  # what is compared on is not what was calibrated on
    assert export(model, batches[0][:1], tmp_path / "one.onnx", int8=Int8(batches=batches, samples=8)).sqnr_db > 25


def test_some_inputs_are_kept_to_compare_on() -> None:
    batches = [torch.arange(10.0).view(10, 1), torch.arange(10.0, 13.0).view(3, 1)]
    given, kept = split(Int8(batches=batches, samples=6), torch.zeros(2, 1))
    assert [one.flatten().tolist() for one in given] == [[0, 1], [2, 3], [4, 5]]
    assert [one.flatten().tolist() for one in kept] == [[6, 7]]
    given, kept = split(Int8(batches=batches[:1]), torch.zeros(10, 1))
    assert len(given) == 1 and torch.equal(given[0], kept[0]), "one batch serves for both"
    twice = list(pieces([{"x": batches[0], "flag": True}], 5))
    assert [one["x"].shape for one in twice] == [(5, 1), (5, 1)] and twice[1]["flag"] is True
    for none in ((), [torch.zeros(1, 1)]):
        with pytest.raises(ExportError, match="needs inputs to calibrate on, at least 2"):
            split(Int8(batches=none), torch.zeros(2, 1))


def test_nothing_to_quantize_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing in the network was quantized"):
        export(nn.ReLU(), torch.randn(1, 4), tmp_path / "r.onnx", int8=Int8(batches=[torch.randn(8, 4)]))


@pytest.mark.parametrize(
    ("name", "extra"),
    [("onnxruntime", "onnx"), ("openvino", "openvino"), ("compile", "ao"), ("executorch", "executorch")],
)
def test_a_missing_package_is_named(name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda package: None)
    with pytest.raises(BackendError, match=rf"'{name}-int8' cannot be used: .*pip install 'espalier\[{extra}\]'"):
        runner(f"{name}-int8")
    suffix = {"onnxruntime": ".onnx", "openvino": ".xml", "compile": ".pt2", "executorch": ".pte"}[name]
    with pytest.raises(ExportError, match=rf"espalier\[{extra}|onnx\]"):
        settings = Int8(batches=[torch.randn(8, 2)])
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / f"model{suffix}", int8=settings)
    assert not list(tmp_path.iterdir())


_QUANTIZES = """
import socket, sys
def refused(*_, **__):
    raise AssertionError("a connection was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refused
import torch
from pathlib import Path
from espalier.backends import Int8, export
model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
export(model, torch.rand(1, 3, 8, 8), Path(sys.argv[1]) / "m.xml", int8=Int8(batches=[torch.rand(8, 3, 8, 8)]))
assert "nncf" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
from nncf.telemetry import telemetry
assert type(telemetry).__name__ == "MagicMock", telemetry
"""


@pytest.mark.slow
def test_nncf_does_not_phone_home(tmp_path: Path) -> None:
    needs(RUNNERS["openvino-int8"].unavailable())
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _QUANTIZES, str(tmp_path)],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in home.rglob("*") if "telemetry" in path.name or "openvino" in path.name]
