"""Laws of matched layers: kept channels line up after any cuts, and nothing is guessed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.core import Role, Slice, Surgery, UnknownNameError
from espalier.graph.surgery.operate import operate
from espalier.losses import (
    AttentionTransfer,
    DistillationError,
    FeatureHints,
    Hinton,
    Objective,
    layers,
)
from espalier.zoo.cifar_resnet import CifarResNet
from espalier.zoo.digits_cnn import digits_cnn

from .networks.distillation import ALL, NETWORKS, ask, cut_at_random, pair


def without_the_lost(dense: nn.Module, x: Tensor, surgery: Surgery) -> nn.Module:
    """Return the dense network with nothing reading the units that ``surgery`` removes: they change nothing."""
    deaf = copy.deepcopy(dense)
    tensors = dict(deaf.named_parameters())
    readers = {
        (slot.tensor, slot.dim)
        for group in es.trace(dense, x).groups.values()
        for slot in group.slots
        if slot.role is Role.READER
    }
    with torch.no_grad():
        for place in readers & surgery.slices.keys():
            one = surgery.slices[place]
            lost = sorted(set(range(one.size)) - set(one.keep))
            tensors[one.tensor].index_fill_(one.dim, torch.tensor(lost), 0.0)
    return deaf


# ---- channels line up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["index", "learned"])
@pytest.mark.parametrize("name", ["residual", "digits"])
def test_kept_channels_line_up_after_two_cuts(name: str, adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, small, x = pair(name)
    surgery = small.espalier_surgery
    deaf = without_the_lost(dense, x, surgery)  # type: ignore[arg-type]
    student = operate(deaf, surgery)  # type: ignore[arg-type]
    modules = [n for n, m in dense.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    blocks = {"residual": ["layer1", "layer2.0", "layer3"], "digits": ["stem", "block1", "block2"]}[name]
    index = FeatureHints(weight=1, layers=(*modules, *blocks))
    assert ask(index, deaf, student, x).item() == pytest.approx(0, abs=1e-24)
    if adapter == "learned":  # it begins as the index: what it adds is the channels that are gone
        lost = ask(FeatureHints(weight=1, adapter="learned", layers=tuple(blocks)), deaf, student, x).item()
        expected = [gone(deaf, small, x, block) for block in blocks]
        assert lost == pytest.approx(sum(expected) / len(blocks), rel=1e-6)
        return
    right = layers.kept_positions

    def off_by_one(*args: Any) -> dict[int, tuple[int, ...]]:
        return {d: tuple(max(i - 1, 0) for i in kept) for d, kept in right(*args).items()}

    monkeypatch.setattr(layers, "kept_positions", off_by_one)
    assert ask(index, deaf, student, x).item() > 0.01


def gone(teacher: nn.Module, small: nn.Module, x: Tensor, block: str) -> float:
    """Return the share of a block's energy that lies in channels which the student does not have."""
    found: list[Tensor] = []
    handle = teacher.get_submodule(block).register_forward_hook(lambda m, i, o: found.append(o.detach()))
    teacher(x)
    handle.remove()
    last = [m for m in small.get_submodule(block).modules() if isinstance(m, nn.BatchNorm2d)][-1]
    norm = next(name for name, module in small.named_modules() if module is last)
    one = small.espalier_surgery.slices.get((f"{norm}.weight", 0))  # type: ignore[union-attr]
    energy = found[0].square().sum((0, 2, 3))
    kept = energy[list(one.keep)] if one else energy
    return float(1 - kept.sum() / energy.sum())


def test_token_features_line_up_with_the_embedding() -> None:
    dense, small, x = pair("tokens")
    surgery = small.espalier_surgery
    found = layers.match_layers(dense, small, layers.Call(x), (), stages=2)
    assert [match.teacher for match in found] == ["blocks.0", "norm"]
    kept = surgery.slices["norm.weight", 0].keep  # type: ignore[union-attr]
    assert len(kept) < 16
    assert all(match.channel == 2 and match.kept == {2: kept} for match in found)
    inner = ("blocks.0.up", "blocks.1.up", "blocks.0.qkv", "blocks.1.qkv")
    slices = [surgery.slices.get((f"{name}.weight", 0)) for name in inner]  # type: ignore[union-attr]
    assert any(slices)
    hidden = layers.match_layers(dense, small, layers.Call(x), inner, stages=1)
    assert [match.kept for match in hidden] == [{2: one.keep} if one else {} for one in slices]


@pytest.mark.parametrize("objective", ALL[2:], ids=repr)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_cut_network(name: str, objective: Objective) -> None:
    dense, small, x = pair(name)
    small.train()
    ask(objective, dense, small, x).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters())


def test_a_teacher_that_was_cut_itself() -> None:
    dense, small, x = pair("residual", (0.7,))
    smaller = cut_at_random(small, x, 5, 0.6)
    deaf = without_the_lost(dense, x, smaller.espalier_surgery)  # type: ignore[arg-type]
    teacher, student = (operate(deaf, model.espalier_surgery) for model in (small, smaller))  # type: ignore[arg-type]
    assert ask(FeatureHints(), teacher, student, x).item() == pytest.approx(0, abs=1e-24)
    with pytest.raises(DistillationError, match="was cut before.*name the layers"):
        ask(FeatureHints(), student, teacher, x)


def test_a_surgery_since_an_earlier_one() -> None:
    dense, small, x = pair("residual")
    first = cut_at_random(dense, x, 0, 0.7)
    since = small.espalier_surgery.since(first.espalier_surgery)  # type: ignore[union-attr]
    again = first.espalier_surgery.then(since)  # type: ignore[union-attr]
    assert again.slices == small.espalier_surgery.slices  # type: ignore[union-attr]
    assert Surgery().since(Surgery()) == Surgery()
    one = Surgery({("w", 0): Slice("w", 0, (0, 2), 3)})
    assert one.since(one).slices == {("w", 0): Slice("w", 0, (0, 1), 2)}
    with pytest.raises(ValueError, match="position 1 of 'w', dimension 0, was cut before"):
        Surgery().since(one)


# ---- which layers -----------------------------------------------------------------------------------------------


class Segmenting(nn.Module):
    """Coarse scores, enlarged: the classifier's channels are the answer's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.classifier = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.classifier(torch.relu(self.body(torch.relu(self.stem(x))))), scale_factor=2)


def stages(model: nn.Module, x: Tensor, count: int) -> list[str]:
    graph = es.trace(model, x)
    return layers.stage_ends(graph, layers.features(graph).values(), count)


def test_stage_ends() -> None:
    resnet = CifarResNet(20)
    assert stages(resnet, torch.zeros(2, 3, 32, 32), 4) == ["layer1", "layer2", "layer3"]
    assert stages(resnet, torch.zeros(2, 3, 32, 32), 2) == ["layer2", "layer3"]
    assert stages(digits_cnn(), torch.zeros(2, 1, 8, 8), 4) == ["block1", "block2"]
    assert stages(Segmenting(), torch.zeros(2, 3, 16, 16), 4) == ["stem", "body"]
    perceptron = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.ReLU())), nn.Linear(8, 2))
    assert stages(perceptron, torch.zeros(2, 8), 4) == ["1", "3", "5", "7"]
    assert len(stages(perceptron, torch.zeros(2, 8), 99)) == 8


def test_named_layers_must_be_there_and_run_once() -> None:
    dense, small, x = pair("digits", (0.7,))
    with pytest.raises(UnknownNameError, match="'blok1'. Did you mean 'block1'"):
        ask(FeatureHints(layers=("blok1",)), dense, small, x)
    with pytest.raises(UnknownNameError, match="'relu'.*must run once"):
        ask(FeatureHints(layers=("relu",)), dense, small, x)  # it runs twice
    with pytest.raises(UnknownNameError, match="layer of the student 'nowhere'"):
        ask(AttentionTransfer(layers=(("block1", "nowhere"),)), dense, small, x)


class Other(nn.Module):
    """A student of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 5, 3, padding=1), nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)).mean((2, 3)))


def test_a_student_that_was_not_cut_by_us() -> None:
    torch.manual_seed(0)
    dense, student, x = digits_cnn(), Other(), torch.randn(3, 1, 8, 8)
    for objective in (FeatureHints(), AttentionTransfer()):
        with pytest.raises(DistillationError, match=r"'stem.0.weight' is missing.*name the layers"):
            ask(objective, dense, student, x)
    named = (("block1", "first"),)
    with pytest.raises(DistillationError, match=r"block1 -> first: no surgery tells .* adapter='learned'"):
        ask(FeatureHints(layers=named), dense, student, x)
    assert ask(AttentionTransfer(layers=named), dense, student, x).item() > 0
    with FeatureHints(layers=named, adapter="learned").attached(dense, student, example=x) as term:
        assert {name: tuple(p.shape) for name, p in term.named_parameters()} == {
            "parts.0.adapters.0.weight": (32, 5),
            "parts.0.adapters.0.bias": (32,),
        }
        outputs = student(x)
        term(x, outputs, None, outputs.sum() * 0).backward()
        assert all(p.grad is not None for p in term.parameters())
    assert ask(Hinton(), dense, student, x).item() > 0


def test_learned_adapters_need_an_example_and_learn() -> None:
    dense, small, x = pair("digits", (0.5,))
    objective = FeatureHints(adapter="learned")
    with pytest.raises(DistillationError, match="example"), objective.attached(dense, small):
        pass
    random = torch.get_rng_state()
    with objective.attached(dense, small, example=x) as term:
        optimizer = torch.optim.Adam(term.parameters(), lr=0.02)
        losses = []
        for _ in range(20):
            loss = term(x, small(x), None, torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        assert term.notes == (
            f"block1: {len(small.espalier_surgery.slices['stem.1.weight', 0].keep)} of 32 channels",  # type: ignore[union-attr]
            f"block2: {len(small.espalier_surgery.slices['down.1.weight', 0].keep)} of 64 channels",  # type: ignore[union-attr]
        )
    assert torch.equal(torch.get_rng_state(), random)
