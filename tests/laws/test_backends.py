"""Laws of backends: each computes what PyTorch does, times layers alone, and writes no file that does not."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.backends import BACKENDS, BackendError, ExportError, export, onnx_file
from espalier.backends.agreement import compared
from espalier.core import FileError, UnknownNameError
from espalier.graph.probes.operators import operators

NAMES = [pytest.param(name, marks=pytest.mark.slow) if name == "compile" else name for name in BACKENDS]
SUFFIXES = (".onnx", ".xml", ".pt2")


class Mixed(nn.Module):
    """A convolution of every kind, then tokens, attention and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.grouped = nn.Conv2d(16, 32, 1, groups=2)
        self.up = nn.ConvTranspose2d(32, 32, 2, stride=2)
        self.tokens = nn.Linear(32, 24)
        self.layer_norm = nn.LayerNorm(24)
        self.heads, self.head_dim = 2, 12
        self.qkv = nn.Linear(24, 72)
        self.proj = nn.Linear(24, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.up(self.grouped(self.depthwise(x) + x))
        x = self.layer_norm(nn.functional.gelu(self.tokens(x.flatten(2).mT)))
        qkv = self.qkv(x).reshape(len(x), x.shape[1], 3, self.heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = self.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)) + x
        return {"logits": self.head(x.mean(1)) * scale, "tokens": x}


def mixed() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    return Mixed(), (torch.randn(2, 3, 6, 6), torch.rand(1) + 1)


@pytest.fixture(scope="module")
def cut() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Return a network that was cut, and its example."""
    model, example = mixed()
    graph = es.trace(model, example)
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(params=0.6))
    return es.cut(model, graph, plan), example


@pytest.mark.parametrize("name", NAMES)
def test_computes_what_pytorch_does(name: str, cut: Any) -> None:
    model, example = cut
    model.train()  # a backend runs a copy in eval mode
    run = es.backends.named(name).prepare(model, example, threads=1)
    with torch.no_grad():
        expected = list(model.eval()(*example).values())
    assert compared(expected, run()).sqnr_db > 90
    assert compared(expected, run()).sqnr_db > 90


@pytest.mark.parametrize("name", NAMES)
def test_times_every_kind_of_layer_alone(name: str) -> None:
    graph = es.trace(*mixed())
    backend = es.backends.named(name)
    mine = [one for one in operators(graph) if backend.times(one.kind)]
    kinds = {one.kind for one in mine}
    assert {"convolution", "addmm", "scaled_dot_product_attention"} <= kinds, kinds
    full = [one.at(one.widths) for one in mine]
    odd = [one.at([max(1, width // 2 - 1) for width in one.widths]) for one in mine if one.kind == "addmm"]
    times = backend.time([*full, *odd], threads=1, sweeps=2)
    assert all(math.isfinite(ms) and ms > 0 for ms in times)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_export_is_checked(suffix: str, cut: Any, tmp_path: Path) -> None:
    model, example = cut
    found = export(model, example, tmp_path / f"small{suffix}")
    assert found.sqnr_db > 90 and found.max_difference < 1e-3
    files = {path.suffix for path in tmp_path.iterdir()}
    assert files == ({".xml", ".bin"} if suffix == ".xml" else {suffix})


@pytest.mark.parametrize("suffix", (".onnx", ".xml"))
def test_a_wrong_weight_is_refused_and_nothing_is_written(
    suffix: str, cut: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, example = cut
    path = tmp_path / f"small{suffix}"
    path.write_bytes(b"an older export")

    def planted(model: nn.Module, *rest: Any) -> None:
        wrong = copy.deepcopy(model)
        with torch.no_grad():
            next(wrong.get_submodule("grouped").parameters()).view(-1)[0] += 0.05
        onnx_file.write_onnx(wrong, *rest)

    monkeypatch.setattr("espalier.backends.files.write_onnx", planted)
    with pytest.raises(ExportError, match="does not compute what Mixed does: SQNR"):
        export(model, example, path)
    assert path.read_bytes() == b"an older export" and len(list(tmp_path.iterdir())) == 1


def test_mappings_export_too(tmp_path: Path) -> None:
    model, (x, scale) = mixed()
    assert export(model, {"x": x, "scale": scale}, tmp_path / "named.onnx").sqnr_db > 90


class Branching(nn.Module):
    """Its Python looks at values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else -self.layer(x)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_cannot_be_exported_is_an_error(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot write Branching"):
        export(Branching(), torch.ones(2, 4), tmp_path / f"out{suffix}")
    assert not list(tmp_path.iterdir())


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"the suffix says the format, one of \.onnx"):
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "model.tflite")
    with pytest.raises(UnknownNameError, match="Did you mean 'onnxruntime'"):
        es.backends.named("onnx-runtime")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "file" / "model.pt2")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"'onnxruntime' cannot be used: .*pip install 'espalier\[onnx\]'"):
        es.backends.named("onnxruntime")
    with pytest.raises(ExportError, match=r"espalier\[onnx\]"):
        export(nn.Linear(2, 2), torch.ones(1, 2), tmp_path / "model.onnx")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_openvino_leaves_signals_alone() -> None:
    """Two of OpenVINO's cores whose lives overlap leave a thread no stack for its signals: the next one kills."""
    code = """
import faulthandler, gc, os, signal
import torch
from espalier.backends import named

faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
first = named("openvino").prepare(torch.nn.Linear(3, 2), torch.randn(1, 3), 1)
second = named("openvino").prepare(torch.nn.Linear(3, 2), torch.randn(1, 3), 1)
for run in (first, second):
    run()
del first
del second, run
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout == "heard\n", done.stderr


def test_openvino_does_not_phone_home(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom espalier.backends import openvino\nopenvino.runtime().save_model\n"
        "assert 'openvino' in sys.modules and not [n for n in sys.modules if n.startswith('openvino_telemetry')]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*openvino*"))
