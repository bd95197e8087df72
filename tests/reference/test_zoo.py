"""The papers' own networks: the function is the published one, and the published weight files fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.tasks import accuracy
from espalier.zoo import NETWORKS, load_weights
from espalier.zoo.cifar_resnet import CifarResNet, cifar_resnet20


class SliceAndPad(nn.Module):
    """The shortcut as the paper's reimplementations write it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.side = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


def published(model: nn.Module) -> nn.Module:
    """Return ``model`` with slice-and-pad shortcuts in place of its convolutions."""
    for parent in [*model.modules()]:
        shortcut = getattr(parent, "shortcut", None)
        if isinstance(shortcut, nn.Conv2d):
            parent.shortcut = SliceAndPad(shortcut.in_channels, shortcut.out_channels)
    return model


@pytest.mark.parametrize(
    ("layers", "parameters"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_cifar_resnet_has_the_published_size(layers: int, parameters: int) -> None:
    model = es.model(f"espalier:cifar_resnet{layers}")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == parameters


def test_option_a_shortcut_is_slice_and_pad() -> None:
    torch.manual_seed(0)
    ours = cifar_resnet20().eval()
    theirs = published(cifar_resnet20()).eval()
    state = {name: tensor for name, tensor in ours.state_dict().items() if "shortcut" not in name}
    theirs.load_state_dict(state, strict=True)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
        ours.layer2[0].shortcut.weight.zero_()
        assert not torch.allclose(ours(x), theirs(x), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("layers", [8, 20, 110])
def test_depths(layers: int) -> None:
    model = CifarResNet(layers)
    trained = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.requires_grad]
    assert len(trained) == layers


@pytest.mark.parametrize("layers", [0, 2, 21])
def test_no_such_depth(layers: int) -> None:
    with pytest.raises(ValueError, match="6 n"):
        CifarResNet(layers)


def trained_state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = cifar_resnet20().state_dict()
    return {name: t.clone() for name, t in state.items() if "shortcut" not in name and "num_batches" not in name}


@pytest.mark.parametrize("name", ["w.safetensors", "w.th", "bare.pt"])
def test_weight_files(tmp_path: Path, name: str) -> None:
    state, path = trained_state(), tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    elif name == "bare.pt":
        torch.save(state, path)
    else:
        torch.save({"state_dict": {f"module.{key}": t for key, t in state.items()}, "best": 91.7}, path)
    model = cifar_resnet20()
    shortcut = model.layer2[0].shortcut.weight.clone()
    load_weights(model, path)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())
    assert torch.equal(model.layer2[0].shortcut.weight, shortcut)


@pytest.fixture(scope="module")
def some_cifar(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Parquet folder whose test split is every twentieth CIFAR-10 test image, 500 of all classes."""
    from pyarrow import parquet

    folder = tmp_path_factory.mktemp("cifar")
    table = parquet.read_table(data_folder / "cifar10" / "test.parquet")
    parquet.write_table(table.take(list(range(0, 10_000, 20))), folder / "test.parquet")
    parquet.write_table(table.take(list(range(1, 10_000, 500))), folder / "train.parquet")
    return folder


@pytest.mark.parametrize("weights", ["cifar10-resnet20.safetensors", "resnet20-12fca82f.th"])
def test_published_weights_classify_real_images(data_folder: Path, some_cifar: Path, weights: str) -> None:
    model = cifar_resnet20()
    load_weights(model, data_folder / "weights" / weights)
    task = es.load_task(f"parquet:{some_cifar}")
    assert 0.76 <= accuracy(model, task.test) <= 0.92  # 86.5 and 81.0 % on all 10,000; 500 give or take 4 points


@pytest.mark.parametrize(
    ("name", "classes", "macs", "params"),
    [
        ("cifar_vgg16", 10, 313_201_664, 14_724_042),  # arXiv:1608.08710, table 2: 3.13e8 FLOP, 1.5e7 parameters
        ("cifar_vgg16_quarter", 10, None, 923_130),
        ("fcn8s_quarter", 11, None, None),
    ],
)
def test_further_networks_are_whole(name: str, classes: int, macs: int | None, params: int | None) -> None:
    network = NETWORKS[name]
    model = network.build(classes).eval()
    x = torch.randn(2, *network.input_shape)
    graph = es.trace(model, x)
    cost = graph.cost()
    assert graph.prunable_share > 0.99 and macs in (None, cost.macs) and params in (None, cost.params)
    outputs = model(x)
    assert outputs.shape == ((2, classes) if "vgg" in name else (2, classes, *network.input_shape[1:]))
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5))
    assert es.cut(model, graph, plan, prove=True)(x).shape == outputs.shape


def test_fcn_takes_any_size() -> None:
    model = NETWORKS["fcn8s_quarter"].build(5).eval()
    assert model(torch.randn(1, 3, 70, 53)).shape == (1, 5, 70, 53)
