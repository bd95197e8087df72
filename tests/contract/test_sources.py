"""Models by name: every source builds, gives an input that runs, downloads nothing, and fails in one clear sentence."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import espalier as es
from espalier import zoo
from espalier.core import ModelError, UnknownNameError
from espalier.zoo import NETWORKS
from espalier.zoo.sources import extra, torchvision_operators

# timm and transformers import names that newer versions of others deprecate
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SMALL = [
    *(f"espalier:{name}" for name in NETWORKS),
    "timm:resnet10t",
    "timm:vit_tiny_patch16_224",
    "torchvision:mobilenet_v3_small",
    "torchvision:inception_v3",
    "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:raft_small",
    "transformers:tiny-bert",
    "transformers:tiny-clip",
    "transformers:tiny-deit",
    "transformers:tiny-llama",
    "transformers:tiny-t5",
    "transformers:tiny-vit",
    "transformers:tiny-wav2vec2",
]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def run(model: nn.Module, example: Any) -> Any:
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


@pytest.mark.parametrize("name", SMALL)
def test_builds_and_runs_on_its_example(name: str) -> None:
    model = es.model(name).eval()
    first, again = (es.default_example(model, name) for _ in range(2))
    with torch.no_grad():
        assert run(model, first) is not None
    for one, two in zip(torch.utils._pytree.tree_leaves(first), torch.utils._pytree.tree_leaves(again), strict=True):
        assert torch.equal(one, two) and len(one) == 2
    assert model.espalier_source == name


@pytest.mark.parametrize(
    "name", ["espalier:digits_cnn", "timm:resnet10t", "torchvision:mobilenet_v3_small", "transformers:tiny-vit"]
)
def test_classes_are_outputs(name: str) -> None:
    model = es.model(name, classes=7).eval()
    with torch.no_grad():
        outputs = run(model, es.default_example(model, name))
    assert getattr(outputs, "logits", outputs).shape == (2, 7)


def test_decoder_classifies_a_batch() -> None:
    model = es.model("transformers:tiny-llama", classes=5).eval()
    with torch.no_grad():
        assert model(**es.default_example(model, "transformers:tiny-llama")).logits.shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("timm:resnt50", "timm:resnet50"),
        ("torchvision:resnt18", "torchvision:resnet18"),
        ("transformers:bertt", "transformers:bert"),
        ("transformers:tiny-llamma", "transformers:llama"),
        ("espalier:digit_cnn", "espalier:digits_cnn"),
        ("tim:resnet50", "timm"),
        ("resnet50", "timm:resnet50"),
        ("bert", "transformers:bert"),
    ],
)
def test_unknown_name_has_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError, match=nearest):
        es.model(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:hf-hub:someone/model", {}, "hub are refused"),
        ("espalier:digits_cnn", {"pretrained": True}, "weight file"),
        ("transformers:bert", {"pretrained": True}, "from_pretrained"),
        ("torchvision:resnet18", {"pretrained": True, "classes": 3}, "leave out classes"),
        ("timm:resnet18", {"classes": 0}, "at least one class"),
        ("transformers:tiny-detr", {"classes": 3}, "has no classifier"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        es.model(name, **options)


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", broken)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", broken)
    with pytest.raises(ModelError, match="could not be fetched: OSError: no route"):
        es.model("torchvision:resnet18", pretrained=True)


def test_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda package: None)
    for name in ("timm:resnet18", "torchvision:resnet18", "transformers:bert"):
        with pytest.raises(ModelError, match=r"espalier\[zoo\]"):
            es.model(name)


def test_too_large_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 4096)
    with pytest.raises(ModelError, match="transformers:tiny-bert is the same architecture in small"):
        es.model("transformers:bert")


def test_torchvision_imports_in_a_fresh_process() -> None:
    code = "import espalier as es; es.model('torchvision:squeezenet1_1'); es.model('timm:resnet10t')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_working_extension_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_operators, "_extension_loads", lambda folder: True)
    assert torchvision_operators.declare.__wrapped__() is None


USER_FILE = """
import torch
from torch import nn
from beside import WIDTH

def net(classes=4):
    return nn.Sequential(nn.Linear(3, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))

def fixed():
    return nn.Linear(2, 2)

def number():
    return 3

def broken():
    raise RuntimeError("no such luck")

def needy(width, classes=3):
    return nn.Linear(width, classes)

def forgetful():
    nn.Linear(2, 2)

def leaving():
    raise SystemExit(0)

class Whole(nn.Linear):
    def __init__(self, classes=3):
        super().__init__(3, classes)

def _private():
    return nn.Linear(2, 2)

def example():
    return torch.ones(5, 3)
"""


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    path = tmp_path / "nets.py"
    path.write_text(USER_FILE)
    return path


def test_user_file(user_file: Path) -> None:
    name = f"{user_file}:net"
    model = es.model(name, classes=9)
    assert model(es.default_example(model, name)).shape == (5, 9)
    assert not hasattr(model, "espalier_source")  # a path means nothing on another machine


def test_user_file_is_read_afresh(user_file: Path) -> None:
    assert len(es.model(f"{user_file}:net")) == 3
    user_file.write_text("from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Identity())  # edited\n")
    assert len(es.model(f"{user_file}:net")) == 1


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        ("nett", {}, UnknownNameError, "Did you mean 'net'"),
        ("fixed", {"classes": 3}, ModelError, "no argument named classes"),
        ("number", {}, ModelError, "returned int"),
        ("broken", {}, ModelError, "RuntimeError: no such luck at line 16"),
        ("needy", {}, ModelError, "needs arguments .*'width'.*: give them defaults"),
        ("needy", {"classes": 3}, ModelError, "needs arguments .*'width'"),
        ("forgetful", {}, ModelError, "returned nothing"),
        ("leaving", {}, ModelError, r"asks Python to exit \(SystemExit: 0 at line 25\)"),
        ("", {}, ModelError, "does not say which function"),
        ("two words", {}, ModelError, "does not say which function"),
        ("net", {"pretrained": True}, ModelError, "own affair"),
    ],
)
def test_user_file_errors(
    user_file: Path, function: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        es.model(f"{user_file}:{function}", **options)


def test_user_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        es.model(f"{tmp_path}/none.py:net")
    with pytest.raises(ModelError, match="no such file"):
        es.model(f"{tmp_path}/none.py")
    (tmp_path / "wrong.py").write_text("def net(:\n")
    with pytest.raises(ModelError, match="cannot be read as Python: SyntaxError"):
        es.model(f"{tmp_path}/wrong.py")
    (tmp_path / "exit.py").write_text("import sys\nsys.exit()\n")
    with pytest.raises(ModelError, match=r"exit.py asks Python to exit \(SystemExit: None at line 2\)"):
        es.model(f"{tmp_path}/exit.py:net")
    with pytest.raises(ModelError, match="exit.py defines no function"):
        es.model(f"{tmp_path}/exit.py")
    (tmp_path / "shy.py").write_text("def example():\n    return 1 / 0\n")
    with pytest.raises(ModelError, match="shy.py:example failed: ZeroDivisionError: .* at line 2"):
        es.default_example(nn.Identity(), f"{tmp_path}/shy.py:net")
    with pytest.raises(ModelError, match="does not import: SyntaxError"):
        es.model(f"{tmp_path}/wrong.py:net")
    (tmp_path / "plain.py").write_text("from torch import nn\nnet = nn.Identity\n")
    with pytest.raises(ModelError, match=r"write a function example\(\)"):
        es.default_example(nn.Identity(), f"{tmp_path}/plain.py:net")


def test_a_forgotten_function_gets_those_of_the_file_without_running_it(user_file: Path) -> None:
    user_file.write_text(user_file.read_text() + "\nraise SystemExit(0)\n")
    for forgotten in (str(user_file), f"{user_file}:"):
        with pytest.raises(ModelError) as refused:
            es.model(forgotten)
        assert f"gives the model: say {user_file}:net, {user_file}:fixed, " in str(refused.value)
        assert f"{user_file}:Whole" in str(refused.value) and "needy" not in str(refused.value)
        assert "_private" not in str(refused.value) and ":example" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "shape", "takes"),
    [
        ("espalier:cifar_resnet20", (3, 32, 32), True),
        ("timm:resnet10t", (3, 176, 176), True),
        ("torchvision:inception_v3", (3, 299, 299), True),
        ("transformers:tiny-vit", None, True),
        ("FILE:net", (3,), True),
        ("FILE:Whole", (3,), True),
        ("FILE:fixed", (3,), False),
    ],
)
def test_what_a_name_tells(user_file: Path, name: str, shape: tuple[int, ...] | None, takes: bool) -> None:
    full = name.replace("FILE", str(user_file))
    assert zoo.input_shape(full) == shape and zoo.takes_classes(full) == takes
