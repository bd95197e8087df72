"""Small networks and inputs for the laws of int8."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Convolutions with batch norm, one ReLU for all, a sum, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.first = nn.Conv2d(64, 64, 3, padding=1)
        self.second = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu(self.second(self.relu(self.first(x))) + x)
        return self.head(x.mean((2, 3)))


class Outliers(nn.Module):
    """One feature is ten thousand times the others and is not read: a grid for all has no place for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.good = nn.Linear(64, 64)
        self.spoilt = nn.Linear(64, 64)
        self.register_buffer("scale", torch.ones(64))
        with torch.no_grad():
            self.scale[0] = 1e4  # type: ignore[index]
            self.spoilt.weight[:, 0] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.spoilt(torch.relu(self.good(x)) * self.scale)


class Attention(nn.Module):
    """A head of attention between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(32, 96)
        self.outer = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.inner(x).unsqueeze(1).chunk(3, -1)
        return self.outer(nn.functional.scaled_dot_product_attention(q, k, v).squeeze(1))


def residual() -> tuple[nn.Module, list[Tensor]]:
    """Return a network whose batch norm has seen its inputs, and batches of them."""
    torch.manual_seed(0)
    model, batches = Residual(), [torch.rand(16, 3, 12, 12) for _ in range(4)]
    model.norm.momentum = None
    with torch.no_grad():
        for one in batches:
            model(one)
    return model.eval(), batches
