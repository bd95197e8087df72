"""Weight files that do not fit: one clear message of our own, and the model untouched."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import espalier as es
from espalier.core import FileError
from espalier.zoo import load_weights

State = dict[str, Tensor]
RAN: list[str] = []


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple:
        return RAN.append, ("the file's code ran",)


class Net(nn.Module):
    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x).mean((2, 3)))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Net()


def refused(model: nn.Module, path: Path) -> str:
    """Return the message, after seeing that it is of our own words, whole, and changed nothing."""
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FileError) as caught:
            load_weights(model, path)
    message = str(caught.value)
    assert message.startswith(str(path)) and not RAN
    assert "weights_only" not in message and "PyTorch 2" not in message and "internal" not in message
    assert not re.search(r":\s*$", message)
    shown = "".join(str(error) for error in (caught.value.__cause__, caught.value.__context__))
    assert "weights_only" not in shown or caught.value.__suppress_context__
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return message


def whole(save: Callable, tmp_path: Path) -> bytes:
    path = tmp_path / "whole"
    save(Net().state_dict(), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.safetensors", b"", "is empty"),
        ("empty.th", b"", "is empty"),
        ("short.safetensors", b"hi", "truncated, damaged or not a safetensors file"),
        ("text.safetensors", b"these are no weights" * 9, "truncated, damaged or not a safetensors file"),
        ("text.th", b"these are no weights" * 9, "neither a safetensors file nor a PyTorch checkpoint"),
        ("pickle.th", b"\x80\x02hello", "PyTorch checkpoint|more than tensors"),
        ("archive.pt", b"PK\x03\x04" + b"x" * 99, "truncated or damaged"),
    ],
)
def test_what_is_no_weight_file(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search(message, refused(Net(), tmp_path / name))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98])
@pytest.mark.parametrize(("name", "save"), [("w.th", torch.save), ("w.safetensors", save_file)])
def test_truncated_files(tmp_path: Path, name: str, save: Callable, share: float) -> None:
    content = whole(save, tmp_path)
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    assert "truncated" in refused(Net(), tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Trap(), r"more than tensors \(builtins.|more than tensors"),
        ({"state_dict": Trap()}, "more than tensors"),
        (Net(), r"more than tensors \([\w.]*Net\): reading it would run code .* torch.save\(model.state_dict\(\)"),
        ({"mean": np.ones(2)}, r"more than tensors \(numpy"),
        ({"state_dict": {"conv1.weight": 3}}, r"tensors by name.* it holds conv1.weight \(int\)"),
        ({"epoch": 3, "weights": {}}, r"it holds epoch \(int\), weights \(dict\)"),
        ([1, 2], "it holds list"),
        ({}, "it holds nothing"),
    ],
)
def test_what_holds_more_or_else(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.th")
    assert re.search(message, refused(Net(), tmp_path / "w.th"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_bare_pickles_run_nothing(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "w.th").write_bytes(pickle.dumps({"a": Trap()}, protocol))
    assert "more than tensors" in refused(Net(), tmp_path / "w.th")


def test_a_checkpoint_under_another_ending_is_read(tmp_path: Path) -> None:
    stored = Net().state_dict()
    torch.save(stored, tmp_path / "w.safetensors")
    save_file(stored, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        model = Net()
        load_weights(model, tmp_path / name)
        assert all(torch.equal(tensor, stored[key]) for key, tensor in model.state_dict().items())


MISFITS: list[tuple[Callable[[State], State], str]] = [
    (lambda s: {k: t for k, t in s.items() if k != "head.bias"}, r"1 of the model's tensors is not in the file \(head"),
    (lambda s: s | {"extra": torch.ones(1)}, r": 1 of the file's tensors is not in the model \(extra\)\."),
    (
        lambda s: s | {f"b{i}": torch.ones(1) for i in range(5)},
        r": 5 of the file's tensors are not in the model \(b0, b1, b2, \.\.\.\)\. Is it another size or kind",
    ),
    (lambda s: s | {"head.bias": torch.ones(9)}, r": 1 has another shape \(head.bias is \(9,\), not \(3,\)\)"),
    (lambda s: Net(classes=7).state_dict(), r"2 have other shapes .* trained on other classes \(7, and here 3\)\?"),
    (lambda s: Net(width=5).state_dict(), r"have other shapes .* another size"),
    (lambda s: {f"net.{k}": t for k, t in s.items()}, r"begin with 'net\.', a prefix .* save them without"),
    (lambda s: {f"module.module.{k}": t for k, t in s.items()}, r"begin with 'module\.', a prefix"),
]


@pytest.mark.parametrize(("change", "message"), MISFITS)
def test_misfits_are_counted_and_explained(tmp_path: Path, change: Callable[[State], State], message: str) -> None:
    torch.save(change(Net().state_dict()), tmp_path / "w.th")
    found = refused(Net(), tmp_path / "w.th")
    assert re.search(message, found) and "num_batches_tracked" not in found


def test_a_prefix_that_the_model_has_is_named(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "w.th")
    assert "The model's names begin with 'backbone.'" in refused(Wrapped(), tmp_path / "w.th")


def test_batch_counters_are_no_reason_to_refuse(tmp_path: Path) -> None:
    state = Net().state_dict()
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    assert counters
    torch.save(
        {k: t for k, t in state.items() if k not in counters} | {"other.num_batches_tracked": torch.ones(1)},
        tmp_path / "w.th",
    )
    load_weights(Net(), tmp_path / "w.th")


def test_a_cut_network_is_sent_to_load(tmp_path: Path) -> None:
    model = Net()
    graph = es.trace(model, torch.zeros(2, 1, 8, 8))
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(params=0.6))
    es.save(es.cut(model, graph, plan), tmp_path / "small.safetensors")
    assert "Espalier has cut this network: es.load" in refused(model, tmp_path / "small.safetensors")


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.th", tmp_path):
        assert "no such weight file" in refused(Net(), path)


def test_a_model_by_name_takes_a_weight_file(tmp_path: Path) -> None:
    trained = es.model("espalier:digits_cnn")
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(FileError, match="weights=FILE"):
        es.load(tmp_path / "w.safetensors", es.model("espalier:digits_cnn"))
    again = es.model("espalier:digits_cnn", weights=tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))
