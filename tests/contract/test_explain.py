"""``graph.explain``: every name of the model that a user may have seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import UnknownNameError


@pytest.fixture(scope="module")
def graph():
    model = es.model("espalier:cifar_resnet20")
    model.layer3[0].spare = nn.Linear(3, 3)  # never called
    return es.trace(model, torch.zeros(2, 3, 32, 32))


def test_a_container_says_all_that_is_in_it(graph) -> None:
    text = graph.explain("layer3")
    assert text.startswith("layer3:\n")
    for name in ("layer3.0.conv1.weight dim 0 (producer)", "layer3.2.conv2.weight", "layer3.1.bn1.running_mean"):
        assert name in text
    assert "layer2.0.conv1.weight dim 0" not in text and "lives with layer2" in text
    module, tensor = (graph.explain(f"layer3.0.conv1{name}").splitlines()[1:] for name in ("", ".weight"))
    assert module == tensor


def test_a_group_says_all_about_itself(graph) -> None:
    name = next(name for name in graph.groups if name.startswith("layer3.0.conv1"))
    text = graph.explain(name)
    assert text.startswith(f"group {name}: 64 units\n  layer3.0.conv1.weight dim 0 (producer)")
    assert len(text.splitlines()) == 1 + len(graph.groups[name].slots)


def test_what_is_frozen_unreached_or_without_tensors_says_so(graph) -> None:
    assert "linear.weight dim 0: 10 frozen: it is an output of the model" in graph.explain("linear")
    assert "conv1.weight dim 1: 3 frozen: it reads the model's input (convolution)" in graph.explain("conv1.weight")
    assert graph.explain("layer3.0.spare") == "layer3.0.spare:\n  the example does not reach its tensors: they stay"
    bare = es.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), torch.zeros(2, 3, 8, 8))
    assert bare.explain("1") == "1:\n  it has no tensors to cut"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("layr3", "layer3"),
        ("layer3.0.conv", "layer3.0.conv[12]"),
        ("layer3.0.conv1.wieght", "layer3.0.conv1.weight"),
        ("layer3.0.conv1.weight:7", "layer3.0.conv1.weight:0"),
    ],
)
def test_an_unknown_name_gets_the_nearest(graph, name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown module, tensor or group '{name}'. Did you mean '{near}'"):
        graph.explain(name)


def test_no_name_is_no_name(graph) -> None:
    with pytest.raises(UnknownNameError, match="Known: "):
        graph.explain("")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_lines_of_packages_whose_names_begin_with_torch_are_told() -> None:
    model = es.model("torchvision:shufflenet_v2_x0_5")
    graph = es.trace(model, torch.zeros(2, 3, 64, 64))
    sources = {op.source for op in graph.records[0].ops}
    assert any("torchvision" in source and "shufflenetv2.py:" in source for source in sources)
    assert sum(bool(op.source) for op in graph.records[0].ops) > 0.1 * len(graph.records[0].ops)
