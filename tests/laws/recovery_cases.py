"""Small networks whose units can be made up for, and what the tests of recovery ask of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espalier import cut, trace
from espalier.core import Plan
from espalier.recovery import Fit

EXACT = Fit(ridges=(1e-13,), positions=10**6)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def batches(shape: tuple[int, ...], count: int = 4) -> list:
    return [(torch.randn(shape, dtype=torch.float64), None) for _ in range(count)]


def doubled(first: nn.Module, kept: tuple[int, ...] = (0, 2, 3, 6)) -> None:
    """Make every other unit of a layer a positive multiple of a kept one, which relu respects."""
    others = [unit for unit in range(8) if unit not in kept]
    with torch.no_grad():
        for one, other, factor in zip(kept, others, (0.5, 2.0, 1.5, 3.0), strict=True):
            for parameter in first.parameters():
                parameter[other] = factor * parameter[one]


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.first, self.rest = layers[0], nn.Sequential(*layers[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


def convolutional() -> tuple[nn.Module, nn.Module, object, Plan, list]:
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 4),
    )
    dense = Chain(*layers).eval()
    data = [(torch.randn(16, 3, 8, 8), None) for _ in range(4)]
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 2, 3, 6), "rest.2.weight:0": (0, 1, 2)})
    return dense, cut(dense, graph, plan), graph, plan, data
