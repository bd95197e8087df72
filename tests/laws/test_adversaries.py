"""Cuts that are wrong must not pass: each network hides a wrong pairing where a careless proof does not look.

With the fault of ``pair_wrongly`` every such network must be refused; without it, it must be proved.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier.core import ProofError

from .wrong_pairings import PLAN, Hidden, every_other, pair_wrongly, plain


def masked(_: nn.Module, z: Tensor, __: Tensor) -> Tensor:
    return z.masked_fill(torch.tensor([True, False, False, False]), -1e9)


def faint(net: Any, z: Tensor, y: Tensor) -> Tensor:
    return net.c(y.relu()) + 2e-4 * z


def in_training(net: Any, z: Tensor, y: Tensor) -> Any:
    return (net.c(y.relu()), z) if net.training else net.c(y.relu())


def written(_: nn.Module, z: Tensor, __: Tensor) -> Tensor:
    out = z.new_empty(z.shape)
    out[:, :2] = z[:, :2]
    out[:, 2:] = z[:, 2:]
    return out


AFTER = {
    "plain": plain,
    "argmax": lambda _, z, __: z.argmax(-1),
    "sign": lambda _, z, __: z > 0,
    "masked": masked,
    "faint": faint,
    "in_training": in_training,
    "written": written,
    "deque": lambda _, z, __: deque([z]),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_wrong_pairing_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair_wrongly(monkeypatch)
    torch.manual_seed(0)
    model, example = Hidden(AFTER[name]).eval(), torch.randn(16, 4)
    graph = es.trace(model, example)
    assert graph.sizes["a.weight:0"] == 8, "the planted fault frees every unit"
    with pytest.raises(ProofError) as refused:
        es.cut(model, graph, PLAN)
    assert "es.to_graph_module" not in str(refused.value), "the record would pair as wrongly"


@pytest.mark.parametrize("shift", [-1, -2, 9, 3])
def test_rolled_channels_are_cut_right(shift: int) -> None:
    torch.manual_seed(0)
    model, example = Hidden(shift=shift).eval().double(), torch.randn(16, 4, dtype=torch.float64)
    graph = es.trace(model, example)
    plan = every_other(graph)
    small = es.cut(model, graph, plan, prove=False)
    removed = [
        (slot, sorted(set(range(size)) - set(plan.keep[name])))
        for name, size in graph.sizes.items()
        for slot in graph.groups[name].slots
    ]
    with torch.no_grad():
        for slot, units in removed:
            model.get_parameter(slot.tensor).index_fill_(slot.dim, torch.tensor(slot.positions[units].ravel()), 0)
        torch.testing.assert_close(small(example), model(example), rtol=1e-10, atol=1e-12)


class ByIds(Hidden):
    """A gate from a table, whose row 0 is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 4, padding_idx=0)

    def forward(self, x: Tensor, ids: Tensor) -> Any:
        return self.c(self.a(x)) + super().forward(x) * self.table(ids.view(-1)).view(*ids.shape, -1)


class ByMask(Hidden):
    """A mask whose last column stops what is wrong."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.c(self.a(x)) + super().forward(x) * mask[:, -1:]


@pytest.mark.parametrize(
    ("kind", "whole"),
    [(ByIds, torch.zeros(16, dtype=torch.long)), (ByMask, torch.tensor([[1, 1, 0]] * 16))],
)
def test_whole_numbers_that_hide_a_wrong_pairing_prove_nothing(
    kind: type[Hidden], whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, example = kind().eval(), (torch.randn(16, 4), whole)
    right = es.trace(model, example)
    assert es.cut(model, right, every_other(right)).espalier_proof == "float64"
    pair_wrongly(monkeypatch)
    with pytest.raises(ProofError, match="masked original"):
        es.cut(model, es.trace(model, example), PLAN)


class Lengths(nn.Module):
    """Lengths that must be sorted, and fit: others than the example's are no input."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        assert int(lengths[0]) == x.shape[1], "the first is the longest"
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(self.cell(packed)[1][0])


class Chosen(nn.Module):
    """What runs depends on where the largest number stands."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.other, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        y = self.stem(x).relu()
        return self.head(y if int(numbers.argmax()) == 0 else self.other(y))


@pytest.mark.parametrize(
    ("kind", "numbers"), [(Lengths, [5, 4, 3, 2]), (Lengths, [5, 5, 2, 2]), (Chosen, [9, 2, 1, 3])]
)
def test_whole_numbers_that_lead_elsewhere_are_left_as_they_are(kind: type[nn.Module], numbers: list[int]) -> None:
    torch.manual_seed(0)
    model, example = kind().eval(), (torch.randn(4, 5, 4), torch.tensor(numbers))
    graph = es.trace(model, example)
    assert es.cut(model, graph, every_other(graph)).espalier_proof == "float64"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_example_without_numbers_proves_nothing(value: float) -> None:
    model, example = Hidden(shift=3).eval(), torch.full((2, 4), value)
    graph = es.trace(model, example)
    name, size = next(iter(graph.sizes.items()))
    with pytest.raises(ProofError, match="no finite number"):
        es.cut(model, graph, es.Plan({name: tuple(range(size // 2))}))


class Scaled(nn.Module):
    """Attention whose scale loses the size it comes from; with one token, softmax hides whatever the scale is."""

    def __init__(self, scale: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4)
        self.heads, self.width, self.scale = 2, 4, scale

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).view(*x.shape[:2], self.heads, self.width).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = (q @ k.transpose(-1, -2) * self.scale(self, q)).softmax(-1) @ v
        return self.o(y.transpose(1, 2).flatten(2))


SCALES = {
    "math.atan": lambda _, q: 1 / math.atan(q.shape[-1]),
    "float of numpy": lambda _, q: float(1 / np.float64(q.shape[-1])),
    "tensor of an attribute": lambda net, _: torch.tensor(net.width).rsqrt(),
    "tensor of a size": lambda _, q: torch.tensor(q.shape[-1]).rsqrt(),
}


@pytest.mark.parametrize("name", SCALES)
def test_an_example_that_hides_a_wrong_value_on_the_way_proves_nothing(name: str) -> None:
    torch.manual_seed(0)
    model, example = Scaled(SCALES[name]).eval(), torch.randn(1, 1, 4)
    graph = es.trace(model, example)
    (head,) = (g for g, size in graph.sizes.items() if size == 4 and g.startswith("q.weight"))
    counts = graph.feasible({head: 2}, held=[head])
    keep = {g: tuple(range(n)) for g, n in counts.items() if n < graph.sizes[g]}
    assert head in keep
    with pytest.raises(ProofError, match=r"(mul|rsqrt) at .*test_adversaries\.py.* computes other values") as refused:
        es.cut(model, graph, es.Plan(keep))
    assert "es.to_graph_module" in str(refused.value), "its Python alone stands in the way"


def test_train_mode_with_other_sizes_is_another_record() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.q, self.o = 2, nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = 2 if self.training else self.h
            y = self.q(x).view(x.shape[0], x.shape[1], h, -1)
            return self.o((y * y.mean(-1, keepdim=True)).flatten(2))

    graph = es.trace(Heads(), torch.randn(2, 3, 4))
    assert all(group.size != 2 for group in graph.groups.values()), "a literal in train mode keeps the heads"
