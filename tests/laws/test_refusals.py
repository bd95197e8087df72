"""What an ordinary model may hold, and no proof should refuse: half of every group is cut, and proved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es

from .wrong_pairings import every_other


class Small(nn.Module):
    """Two wide layers and a narrow one behind what ``forward`` does with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.c, self.b = nn.Linear(8, 6), nn.Linear(8, 10), nn.Linear(16, 3)
        self.does = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def halved(model: nn.Module, example: Tensor) -> nn.Module:
    """Trace a model and keep every other unit of every group."""
    graph = es.trace(model.eval(), example)
    assert graph.groups
    return es.cut(model, graph, every_other(graph))


def sliced(net: Small, x: Tensor) -> Tensor:
    out = x.new_empty(len(x), net.a.out_features + net.c.out_features)
    out[:, : net.a.out_features] = net.a(x)
    out[:, net.a.out_features :] = net.c(x)
    return net.b(out)


def selected(net: Small, x: Tensor) -> Tensor:
    both = torch.cat([net.a(x), net.c(x)], -1)
    out = torch.empty_like(both)
    for row in range(2):
        out[row] = both[row].relu()
    return net.b(out)


@pytest.mark.parametrize("forward", [sliced, selected])
def test_memory_that_nothing_has_written_yet_refuses_nothing(forward: Callable) -> None:
    torch.manual_seed(0)
    spoiled = [torch.full((2, 16), float(n)) for n in range(64)]  # what the next empty tensors find
    del spoiled
    assert halved(Small(forward), torch.randn(2, 8)).espalier_proof == "float64"
