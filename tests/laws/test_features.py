"""Laws of features: the trunk is what alone decides the outputs, and kept positions are what a cut network returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.core import CutError, Slice, Surgery
from espalier.graph.probes.features import features, kept_positions, surviving

from .networks.distillation import NETWORKS, pair


class Gated(nn.Module):
    """Squeeze and excitation, dropout, a layer that is used twice, and a long skip over two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.drop, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(), nn.Tanh()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.down, self.up = nn.Conv2d(8, 12, 2, stride=2), nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.join, self.head = nn.Conv2d(16, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.drop(self.stem(x)))
        x = x * torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = self.join(torch.cat([x, self.up(self.down(x))], 1))
        return self.head(self.twice(y).mean((2, 3)))


class Towers(nn.Module):
    """Two streams from one input that meet late; the second begins when the first is done."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6)) for _ in range(2))
        self.joined, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        return self.head(torch.relu(self.joined(first + self.b(x))))


class Windows(nn.Module):
    """Attention heads in the batch dimension of a batched product."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.out = nn.Linear(5, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4).reshape(3, b * 2, n, 4)
        y = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.head((x + self.out(y.reshape(b, 2, n, 4).transpose(1, 2).reshape(b, n, 8))).mean(1))


MODELS = {
    **NETWORKS,
    "gated": lambda: (Gated(), torch.randn(3, 3, 6, 6)),
    "towers": lambda: (Towers(), torch.randn(3, 5)),
    "windows": lambda: (Windows(), torch.randn(3, 7, 5)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_trunk_alone_decides_the_outputs(name: str) -> None:
    """Put one input's feature into another input's forward: the first one's outputs come out, on the trunk only."""
    torch.manual_seed(0)
    model, x = MODELS[name]()
    model, x = model.double().eval(), x.double()
    found = features(es.trace(model, x))
    expected, decides = model(x), {}
    for module in found:
        seen: list[Any] = []
        handle = model.get_submodule(module).register_forward_hook(lambda m, i, o, seen=seen: seen.append(o))
        model(x)
        handle.remove()
        handle = model.get_submodule(module).register_forward_hook(lambda m, i, o, seen=seen: seen[0])
        decides[module] = torch.allclose(model(torch.randn_like(x)), expected)
        handle.remove()
    assert {module: feature.trunk for module, feature in found.items()} == decides
    assert any(decides.values())


def test_only_modules_that_compute_what_they_return_once() -> None:
    model, x = MODELS["gated"]()
    found = features(es.trace(model, x))
    assert list(found) == ["stem", "squeeze", "excite", "down", "up", "join", "head"]
    assert (found["down"].channel, found["down"].positions, found["excite"].positions) == (1, 9, 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_positions_are_the_shapes_of_the_cut_network(name: str) -> None:
    dense, small, x = pair(name)
    graph = es.trace(dense, x)
    alive = surviving(graph, small.espalier_surgery)  # type: ignore[arg-type]
    after = features(es.trace(small, x))
    for module, feature in features(graph).items():
        kept = kept_positions(graph, feature, alive)
        assert after[module].shape == tuple(len(kept.get(d, range(n))) for d, n in enumerate(feature.shape))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Slice("nowhere", 0, (0,), 2), "no 'nowhere' of 2 in dim 0"),
        (Slice("a.0.weight", 0, (0,), 5), "no 'a.0.weight' of 5 in dim 0"),
        (Slice("a.0.weight", 2, (0,), 5), "no 'a.0.weight' of 5 in dim 2"),
        (Slice("a.0.weight", 0, (0, 1), 6), "keeps parts of units"),
    ],
    ids=["tensor", "size", "dim", "part"],
)
def test_a_surgery_of_another_network_is_refused(wrong: Slice, message: str) -> None:
    model, x = MODELS["towers"]()
    with pytest.raises(CutError, match=message):
        surviving(es.trace(model, x), Surgery({(wrong.tensor, wrong.dim): wrong}))
