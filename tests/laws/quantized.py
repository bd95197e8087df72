"""A small network whose inputs are quantized in every way, and some of whose weights lie on grids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from espalier.graph.grids import Dynamic, Grid, Grids, Sign, WeightGrid, put_grids_

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(7))


class Small(nn.Module):
    """Two paths that meet, a normalisation, and layers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12 * 16, 10)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.first(x)))
        y = y + self.second(input=y)
        return self.head(torch.relu(self.third(y)).flatten(1))


def grid_of(weight: Tensor, bits: int = 4, *, axis: int | None = 0) -> WeightGrid:
    """Return the grid that ends at the largest weight, of each channel or of all."""
    size = weight.detach().abs()
    largest = size.amax([d for d in range(weight.dim()) if d != axis]) if axis is not None else size.amax()
    return WeightGrid(bits=bits, step=largest / (2 ** (bits - 1) - 1), axis=axis or 0)


def snapped(weight: Tensor, grid: WeightGrid) -> None:
    """Put a weight on a grid, in place."""
    with torch.no_grad():
        weight.copy_(grid.value(grid.integers(weight), weight.dtype))


def quantized(*, signs: bool = True) -> Small:
    """Return the network with grids."""
    model = Small()
    weights = {
        "first.weight": grid_of(model.first.weight, 8),
        "second.weight": grid_of(model.second.weight, 4, axis=1),
        "third.weight": grid_of(model.third.weight, 3, axis=None),
        "head.weight": grid_of(model.head.weight, 2),
    }
    for name, grid in weights.items():
        snapped(model.get_parameter(name), grid)
    inputs = {
        "first": Grid(step=0.03, zero_point=121),
        "second": Grid(bits=4, step=0.3, signed=True),
        "third": Sign(scaled=True) if signs else Grid(step=0.05),
        "head": Dynamic(),
    }
    put_grids_(model, Grids(inputs, weights))
    return model
