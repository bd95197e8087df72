"""Dense networks beside what random cuts leave of them, and the question of a loss term."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.losses import AttentionTransfer, FeatureHints, Hinton, LogitRegression, Objective, Together
from espalier.zoo.cifar_resnet import CifarResNet
from espalier.zoo.digits_cnn import digits_cnn

ALL = [
    Hinton(),
    LogitRegression(),
    FeatureHints(),
    FeatureHints(adapter="learned"),
    AttentionTransfer(),
    Together((Hinton(), FeatureHints(), AttentionTransfer())),
]


class Tokens(nn.Module):
    """Two pre-norm transformer blocks on a class token and eight others."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.position = nn.Parameter(torch.randn(1, 9, 16))
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, -1))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "residual": lambda: (CifarResNet(8), torch.randn(3, 3, 8, 8)),
    "digits": lambda: (digits_cnn(), torch.randn(3, 1, 8, 8)),
    "tokens": lambda: (Tokens(), torch.randn(3, 8, 5)),
}


def cut_at_random(model: nn.Module, x: Tensor, seed: int, macs: float) -> nn.Module:
    graph = es.trace(model, x)
    return es.cut(model, graph, es.plan(graph, es.criteria.random(model, graph, seed=seed), es.Budget(macs=macs)))


def pair(name: str, macs: tuple[float, ...] = (0.7, 0.7)) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a dense network, the same network after several random cuts, and inputs, in float64."""
    return copy.deepcopy(_pair(name, macs))


@functools.cache
def _pair(name: str, macs: tuple[float, ...]) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    dense, x = NETWORKS[name]()
    dense, x = dense.double().eval(), x.double()
    for module in dense.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    small = dense
    for seed, share in enumerate(macs):
        small = cut_at_random(small, x, seed, share)
    return dense, small, x


def ask(objective: Objective, teacher: Any, student: nn.Module, x: Tensor, example: Any = None) -> Tensor:
    with objective.attached(teacher, student, example=x if example is None else example) as term:
        outputs = student(x)
        return term(x, outputs, None, outputs.sum() * 0)
