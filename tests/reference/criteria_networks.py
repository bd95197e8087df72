"""Small networks of every kind that criteria must score, and batches for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import espalier as es
from espalier.graph import Graph

from ..laws.gated import Attention as Tokens
from ..laws.gated import Residual

CLASSES = 3


class Small(nn.Module):
    """A residual block with a depthwise convolution, and one more skip around what reads the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.wide, self.depthwise, self.narrow = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 4, 1)
        self.mix, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        y = self.narrow(torch.tanh(self.depthwise(functional.pad(functional.gelu(self.wide(x)), (1, 1, 1, 1)))))
        x = functional.relu(x + y)
        return self.head((x + self.mix(x)).mean((2, 3)))


class Grouped(nn.Module):
    """A convolution in groups, one transposed, and a flatten that gives each channel four columns."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.up = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.pool, self.hidden, self.head = nn.AvgPool2d(4), nn.Linear(6 * 4, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.grouped(functional.relu(self.norm(self.one(x)))))
        x = self.pool(functional.silu(self.up(x))).flatten(1)
        return self.head(functional.relu(self.hidden(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Linear(5, 6), nn.LSTM(6, 7, batch_first=True), nn.Linear(7, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(torch.tanh(self.embed(x)))[0].mean(1))


class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.Conv3d(6, 8, (1, 3, 3))
        self.pool, self.head = nn.MaxPool3d((2, 1, 1)), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.norm(self.one(x))))
        return self.head(functional.relu(self.two(x)).mean((2, 3, 4)))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sigmoid(self.two(torch.tanh(self.one(x)))))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (Mlp, (4,)),
    "small": (Small, (2, 4, 4)),
    "residual": (Residual, (3, 4, 4)),
    "grouped": (Grouped, (2, 4, 4)),
    "attention": (Tokens, (4, 5)),
    "recurrent": (Recurrent, (3, 5)),
    "video": (Video, (2, 4, 5, 5)),
}


def network(name: str, *, seed: int = 0) -> tuple[nn.Module, Graph]:
    """Return a network in float64 with norms that are no identities, and its graph."""
    torch.manual_seed(seed)
    build, shape = NETWORKS[name]
    model = build().double()
    for tensor_name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "norm" in tensor_name and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return model, es.trace(model.eval(), torch.zeros(2, *shape, dtype=torch.float64))


def batches(name: str, sizes: tuple[int, ...] = (3, 3), *, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Return batches of random inputs and labels; the same samples whatever the sizes."""
    generator = torch.Generator().manual_seed(seed)
    shape = NETWORKS[name][1]
    x = torch.randn(sum(sizes), *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(sum(sizes)) % CLASSES
    return list(zip(x.split(sizes), labels.split(sizes), strict=True))


loss = functional.cross_entropy
