"""Networks that hide a wrong pairing, and the fault that pairs wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor, nn

import espalier as es
from espalier.graph.axes.rules import pieces


def plain(_: nn.Module, z: Tensor, __: Tensor) -> Tensor:
    return z


class Hidden(nn.Module):
    """Two layers with rolled channels between them, and something after that may hide a wrong result."""

    def __init__(self, after: Callable[[nn.Module, Tensor, Tensor], Any] = plain, shift: int = -1) -> None:
        super().__init__()
        self.a, self.b, self.c, self.after, self.shift = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(8, 4), after, shift

    def forward(self, x: Tensor) -> Any:
        y = self.a(x)
        return self.after(self, self.b(y.roll(self.shift_of(), -1).relu()), y)

    def shift_of(self) -> int:
        return {-1: -1, -2: -2, 9: 9, 3: 3}[self.shift]  # a literal, without provenance


PLAN = es.Plan({"a.weight:0": (2, 3, 4, 5)})


def pair_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rule of ``roll`` forget that a shift counts positions: cuts pair channels with others' weights."""
    monkeypatch.setattr(pieces, "_state_shift", lambda *_: None)


def every_other(graph: Any) -> es.Plan:
    """Return a plan that keeps every other unit of every group."""
    return es.Plan({name: tuple(range(0, size, 2)) for name, size in graph.sizes.items()})
