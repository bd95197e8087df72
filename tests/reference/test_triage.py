"""Deep Net Triage: blocks of networks of three kinds, one layer in their place, and what its study finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import ModelError, UnknownNameError
from espalier.core.findings import Bars
from espalier.studies.anova import two_way
from espalier.studies.files import StudyError, checked
from espalier.studies.found import findings
from espalier.studies.run import run
from espalier.studies.statistics import StatisticsError
from espalier.studies.triage.blocks import Block, blocks, features, field_of, replaced
from espalier.studies.triage.child import Child
from espalier.studies.triage.found import epochs_to
from espalier.studies.triage.inits import begin

VGG = [8, 8, "M", 16, 16, 16, "M", 32]


def vgg(norm: bool = True) -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for width in VGG:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        assert isinstance(width, int)
        layers += [nn.Conv2d(inputs, width, 3, padding=1), *([nn.BatchNorm2d(width)] * norm), nn.ReLU()]
        inputs = width
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(nn.Sequential(*layers), head).eval()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "shape", "found"),
    [
        ("espalier:cifar_resnet20", (2, 3, 32, 32), ["layer1", "layer2", "layer3"]),
        ("espalier:digits_cnn", (2, 1, 8, 8), ["block1", "block2"]),
        (
            "espalier:i3d_narrow",
            (2, 1, 8, 32, 32),
            [f"Mixed_{n}" for n in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")],
        ),
    ],
)
def test_the_blocks_of_known_networks(name: str, shape: tuple[int, ...], found: list[str]) -> None:
    model, x = es.model(name, classes=10).eval(), random(*shape)
    assert [block.name for block in blocks(model, x)] == found
    for block in blocks(model, x)[:2]:
        child, layer = replaced(model, block, x, kernel=3)
        assert child.eval()(x).shape == (2, 10)
        given, made = features(child, block, x)
        wanted = features(model, block, x)
        assert torch.equal(given, wanted[0]) and made.shape == wanted[1].shape  # what is before it is the parent's own
        if "i3d" not in name:  # one kernel of 27 costs more than an Inception block's four branches
            assert es.trace(child, x).cost().macs < es.trace(model, x).cost().macs
        assert child.get_submodule(block.name) is layer


def test_a_chain_is_divided_at_its_pools() -> None:
    model, x = vgg(), random(2, 3, 16, 16)
    found = blocks(model, x)
    assert [(block.name, block.convs) for block in found] == [("0[0:6]", 2), ("0[7:16]", 3)]
    child, layer = replaced(model, found[1], x, kernel=field_of(model, found[1]))
    assert layer[0].kernel_size == (7, 7) and child.eval()(x).shape == (2, 10)
    chain = child.get_submodule("0")
    assert isinstance(chain, nn.Sequential) and chain[7] is layer
    assert all(isinstance(chain[i], nn.Identity) for i in range(8, 16)) and isinstance(chain[16], nn.MaxPool2d)


def test_networks_and_blocks_that_are_none() -> None:
    with pytest.raises(ModelError, match="no block"):
        blocks(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), random(2, 3, 8, 8))
    with pytest.raises(UnknownNameError, match="layer1"):
        features(es.model("espalier:cifar_resnet20"), Block("layer11", 2), random(2, 3, 32, 32))


def test_the_mean_of_the_kernels_that_agree() -> None:
    model, x = vgg(), random(2, 3, 16, 16)
    block = blocks(model, x)[1]  # 8 to 16, 16 to 16, 16 to 16: only the first has the layer's shape
    _, layer = replaced(model, block, x, kernel=3)
    assert begin("mean", layer, model, block, []) == ""
    assert torch.equal(layer[0].weight, model.get_submodule("0")[7].weight)  # type: ignore[index]
    digits = es.model("espalier:digits_cnn")
    inner = blocks(digits, random(2, 1, 8, 8))[0]
    _, layer = replaced(digits, inner, random(2, 1, 8, 8), kernel=3)
    begin("mean", layer, digits, inner, [])
    assert torch.allclose(layer[0].weight, (digits.block1.conv1[0].weight + digits.block1.conv2[0].weight) / 2)
    _, wide = replaced(model, block, x, kernel=7)
    before = wide[0].weight.clone()  # type: ignore[operator]
    assert "at random" in begin("mean", wide, model, block, []) and torch.equal(before, wide[0].weight)


def test_the_layer_is_fitted_to_the_block() -> None:
    torch.manual_seed(0)
    model, x = es.model("espalier:digits_cnn").eval(), [random(64, 1, 8, 8) + i for i in range(2)]
    block = blocks(model, x[0])[0]
    _, layer = replaced(model, block, x[0], kernel=3)
    given, wanted = features(model, block, x[0])

    def error() -> float:
        with torch.no_grad():
            return float((layer.train()(given) - wanted).square().mean() / wanted.var())

    before, said = error(), begin("parent", layer, model, block, x)
    assert error() < 0.25 * before and "explains" in said


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_trained_and_what_rests(alone: bool) -> None:
    torch.manual_seed(0)
    model, x = es.model("espalier:digits_cnn"), random(32, 1, 8, 8)
    network, layer = replaced(model, blocks(model, x)[0], x, kernel=3)
    child = Child(network, layer, alone=alone).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = [parameter for parameter in child.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    child(x).square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    own = {name for name in before if name.startswith("block1.")}
    assert own <= moved and (moved == own) == alone
    assert not child.eval().training and not network.training and layer.training is False


def test_the_analysis_of_variance_is_that_of_statsmodels() -> None:
    pandas = pytest.importorskip("pandas")
    models = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    cells = np.random.default_rng(0).normal(size=(3, 4, 2)) + np.arange(3)[:, None, None]
    rows = [{"a": f"a{i}", "b": f"b{j}", "y": cells[i, j, k]} for i in range(3) for j in range(4) for k in range(2)]
    table = anova.anova_lm(models.ols("y ~ C(a) * C(b)", pandas.DataFrame(rows)).fit())
    found = two_way(cells, ("a", "b"))
    assert [one.name for one in found] == ["a", "b", "a with b"]
    assert [one.squares for one in found] == pytest.approx(list(table["sum_sq"][:3]))
    assert [one.freedom for one in found] == list(table["df"][:3])
    assert [one.ratio for one in found] == pytest.approx(list(table["F"][:3]))
    assert [one.p for one in found] == pytest.approx(list(table["PR(>F)"][:3]))
    assert sum(one.share for one in found) == pytest.approx(1 - table["sum_sq"].iloc[3] / table["sum_sq"].sum())
    with pytest.raises(StatisticsError):
        two_way(cells[:, :, :1], ("a", "b"))


def test_epochs_to_a_target() -> None:
    assert epochs_to([0.1, 0.6, 0.5], 0.5) == 2 and epochs_to([0.1], 0.5) is None


def data(**changes: Any) -> dict[str, Any]:
    train = {"epochs": 3, "lr": 0.1}
    subject = {"name": "digits", "model": "espalier:digits_cnn", "data": "digits", "batch_size": 256, "train": train}
    quick = {
        "inits": ["random", "parent"],
        "losses": ["ce", "kd"],
        "scopes": ["layer", "network"],
        "blocks": {"digits": ["block2"]},
    }
    return {
        "kind": "triage",
        "name": "t",
        "tasks": [subject],
        "training": {"epochs": 1, "lr": 0.05},
        **quick,
        **changes,
    }


def test_a_study_of_blocks(tmp_path: Path) -> None:
    study = checked(data(blocks={}, inits=["random"], losses=["kd"]))
    outcome = run(study, tmp_path)
    assert not outcome.failed and outcome.computed == 2 + 2 * 2 * 2
    found = findings(outcome)
    (section,) = found.sections
    bars = [part for part in section.parts if isinstance(part, Bars)]
    assert [[bar.label for bar in one.rows] for one in bars] == [["block1", "block2"]] * 2
    numbers = found.numbers["digits"]
    for child in numbers["children"]:
        parent = numbers["parent"][str(child["seed"])]
        assert child["criticality"] == pytest.approx(parent - child["test"]) and len(child["curve"]) == 1
        assert 0 < child["macs_ratio"] < 1 and 0 < child["params_ratio"] < 1
    assert run(study, tmp_path).computed == 0


@pytest.mark.slow
def test_a_study_of_blocks_asks_whether_the_block_matters(tmp_path: Path) -> None:
    outcome = run(checked(data(blocks={})), tmp_path)
    found = findings(outcome)
    assert not outcome.failed and "which block is replaced" in found.lead
    anova = found.numbers["digits"]["anova"]
    assert [one["freedom"] for one in anova["network"]] == [1, 3, 3]
    children = found.numbers["digits"]["children"]
    layer, network = (np.mean([c["test"] for c in children if c["scope"] == scope]) for scope in ("layer", "network"))
    assert network > layer - 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inits": ["he"]}, "init 1"),
        ({"blocks": {"digit": ["a"]}}, "no task is called 'digit'"),
        ({"inits": []}, "inits"),
        ({"kd_wight": 1}, "did you mean 'kd_weight'"),
        ({"losses": ["ce", "ce"]}, "there twice"),
    ],
)
def test_mistakes_in_a_study_of_blocks(change: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        checked(data(**change))
