"""Networks to gate and tap, in which zeros do not stay zero."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves


class Residual(nn.Module):
    """A sigmoid, biases and a depthwise convolution lie between producers and readers: zeros do not stay zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.one, self.one_norm = nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.depthwise, self.depthwise_norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.two, self.two_norm = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.hidden, self.head = nn.Linear(6 * 16, 10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_norm(self.stem(x)))
        y = torch.sigmoid(self.one_norm(self.one(x)))
        y = functional.relu(self.depthwise_norm(self.depthwise(y)))
        x = functional.relu(x + self.two_norm(self.two(y)))
        return self.head(functional.softplus(self.hidden(x.flatten(1))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.position = nn.Parameter(torch.randn(4, 12))
        self.heads = 3
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.out, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        b, n, _ = x.shape
        q, k, v = (part(x).reshape(b, n, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, -1))
        return self.head(x.sum(1))


def made(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = kind().double().eval()
    x = torch.randn(3, 3, 4, 4) if kind is Residual else torch.randn(3, 4, 5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    return model, x.double()


def close_gates(gates: dict[str, nn.Parameter], keep: dict[str, tuple[int, ...]]) -> None:
    with torch.no_grad():
        for name, units in keep.items():
            gates[name][sorted(set(range(len(gates[name]))) - set(units))] = 0


def weights(t: Tensor) -> Tensor:
    return torch.arange(1, t.numel() + 1, dtype=t.dtype).reshape(t.shape)


def loss(result: Any) -> Tensor:
    return torch.stack([(t * weights(t)).sin().sum() for t in tree_leaves(result)]).sum()
