"""What decides by a size of the input (batch, length, height) holds for the example alone: its axes freeze.

Each network here runs at other sizes than the example's; what is cut from it must do there what zeros do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import espalier as es

from ..patterns.base import Net
from .wrong_pairings import every_other

BOUND, SHAPE = "its bound is a size of the input", "other sizes order it differently"


def until_batch(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, : x.shape[0]].sum(1, keepdim=True) + y)


def from_the_end(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, -x.shape[0] :].sum(1, keepdim=True) + y)


def narrowed(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.narrow(1, 0, x.shape[0]).sum(1, keepdim=True) + y)


def beyond_the_end(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, : 5 * x.shape[0]].sum(1, keepdim=True) + y)


def from_the_width(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, : y.shape[1] - x.shape[0]].sum(1, keepdim=True) + y)


def rolled(net: Any, x: Tensor) -> Tensor:
    return net.two(net.one(x).relu().roll(x.shape[0], 1))


def padded(net: Any, x: Tensor) -> Tensor:
    y = F.pad(net.one(x).relu(), (x.shape[0], 8 - x.shape[0]))
    return net.two(y)


def split_by_batch(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.split(x.shape[0], 1)[0].sum(1, keepdim=True) + y)


def chunked(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.chunk(x.shape[0], 1)[0].sum(1, keepdim=True) + y)


def one_position(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, x.shape[0] : x.shape[0] + 1] + y)


def until_length(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, : len(x)].sum(1, keepdim=True) + y)


def until_bare_number(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y[:, -int(x.shape[0]) :].sum(1, keepdim=True) + y)


def parted_by_batch(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.view(len(y), x.shape[0], -1).amax(-1).sum(1, keepdim=True) + y)


BOUNDS = [
    until_batch, from_the_end, narrowed, beyond_the_end, from_the_width, rolled, padded, split_by_batch, chunked,
    one_position, until_length, until_bare_number,
]  # fmt: skip


@pytest.mark.parametrize("run", BOUNDS, ids=lambda run: run.__name__)
def test_an_axis_bounded_by_the_batch_stays_whole(run: Callable[..., Any]) -> None:
    two = nn.Linear(20 if run is padded else 12, 3)
    graph = es.trace(Net(run, one=nn.Linear(8, 12), two=two).eval(), torch.randn(4, 8))
    assert not graph.groups
    why = [frozen for frozen in graph.frozen if frozen.reason == BOUND]
    assert any(frozen.tensor == "one.weight" and __file__ in frozen.source for frozen in why), graph.frozen


def transposed(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.mean(0) + y.t().reshape(y.shape))


def turned(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.view(y.shape[1], y.shape[0]).t())


def turned_by_the_rest(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.reshape(-1, y.shape[0]).t())


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("run", [transposed, turned, turned_by_the_rest, parted_by_batch], ids=lambda run: run.__name__)
def test_channels_that_only_the_example_keeps_in_order_stay_whole(run: Callable[..., Any], batch: int) -> None:
    graph = es.trace(Net(run, one=nn.Linear(8, 12), two=nn.Linear(12, 3)).eval(), torch.randn(batch, 8))
    assert not graph.groups
    if batch == 1:
        assert any(frozen.reason.endswith(SHAPE) and __file__ in frozen.source for frozen in graph.frozen)


def space_last(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    return net.two(y.permute(0, 2, 3, 1).reshape(y.shape))


@pytest.mark.parametrize("size", [1, 3])
def test_a_permutation_hidden_by_one_pixel_keeps_its_channels(size: int) -> None:
    model = Net(space_last, one=nn.Conv2d(3, 6, 1), two=nn.Conv2d(6, 3, 1)).eval()
    assert not es.trace(model, torch.randn(2, 3, size, size)).groups


class Synthesizer(nn.Module):
    """Attention whose scores come from one token alone, for at most ten tokens."""

    def __init__(self, table: bool) -> None:
        super().__init__()
        self.first, self.scores, self.value, self.out = (nn.Linear(8, n) for n in (8, 10, 8, 3))
        self.places = nn.Parameter(torch.randn(12, 8)) if table else None

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.places is None else self.places[: x.shape[1]] + x
        scores = self.scores(self.first(h).relu())[..., : h.shape[1]].softmax(-1)
        return self.out(scores @ self.value(h))


@pytest.mark.parametrize("table", [False, True])
def test_scores_for_longer_inputs_stay(table: bool) -> None:
    torch.manual_seed(0)
    model = Synthesizer(table).eval().double()
    graph = es.trace(model, torch.randn(2, 6, 8, dtype=torch.float64))
    assert "scores.weight:0" not in graph.groups
    assert {"first.weight:0", "value.weight:0"} <= set(graph.groups)
    small, longer = es.cut(model, graph, every_other(graph)), torch.randn(2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        for name, units in every_other(graph).keep.items():
            for slot in graph.groups[name].slots:
                gone = sorted(set(range(graph.sizes[name])) - set(units))
                model.get_parameter(slot.tensor).index_fill_(slot.dim, torch.tensor(slot.positions[gone].ravel()), 0)
        torch.testing.assert_close(small(longer), model(longer), rtol=1e-10, atol=1e-12)


def pooled(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu().mean((2, 3), keepdim=True)
    return net.two(y.view(y.shape[0], y.shape[1]))


def pooled_by_the_rest(net: Any, x: Tensor) -> Tensor:
    return net.two(F.adaptive_avg_pool2d(net.one(x).relu(), 1).view(x.size(0), -1))


def squeezed(net: Any, x: Tensor) -> Tensor:
    return net.two(F.adaptive_avg_pool2d(net.one(x).relu(), 1).squeeze(-1).squeeze(-1))


def flattened(net: Any, x: Tensor) -> Tensor:
    return net.two(net.one(x).relu().amax((2, 3), keepdim=True).flatten(1))


def gated(net: Any, x: Tensor) -> Tensor:
    y = net.one(x).relu()
    b, c, h, w = y.shape
    return net.two((y * y.mean((2, 3)).view(b, c, 1, 1).sigmoid()).view(b, c, h * w).mean(-1))


def joined(net: Any, x: Tensor) -> Tensor:
    z = torch.cat([x, net.one(x)], 1)
    return net.two(z[:, x.shape[1] :].relu().mean((2, 3)) + 0 * F.conv2d(x, net.one.weight).mean())


SOUND = [pooled, pooled_by_the_rest, squeezed, flattened, gated, joined]


@pytest.mark.parametrize("shape", [(2, 3, 5, 5), (1, 3, 1, 1)], ids=str)
@pytest.mark.parametrize("run", SOUND, ids=lambda run: run.__name__)
def test_common_shapes_stay_prunable(run: Callable[..., Any], shape: tuple[int, ...]) -> None:
    graph = es.trace(Net(run, one=nn.Conv2d(3, 6, 1), two=nn.Linear(6, 3)).eval(), torch.randn(shape))
    assert graph.sizes == {"one.weight:0": 6}


def test_attention_of_one_token_stays_prunable() -> None:
    sizes = [
        es.trace(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(*shape, 8)).sizes
        for shape in ((1, 1), (2, 5))
    ]
    assert sizes[0] == sizes[1]
    assert sizes[0]


def branching(net: Any, x: Tensor) -> Tensor:
    y = net.one(x)
    if x.shape[0] == y.shape[1]:
        y = y.t() @ y
    return net.two(y.relu())


def checked(net: Any, x: Tensor) -> Tensor:
    y = net.one(x)
    assert x.shape[1] == net.one.in_features
    assert y.shape[1] == net.one.out_features
    return net.two(y.relu())


def test_a_width_compared_with_the_batch_is_noted() -> None:
    graph = es.trace(Net(branching, one=nn.Linear(8, 6), two=nn.Linear(6, 3)).eval(), torch.randn(4, 8))
    (note,) = graph.notes
    assert "compares a width with a size of the input" in note
    assert __file__ in note
    (condition,) = graph.conditions
    assert [condition.holds([n]) for n in (3, 4, 5)] == [True, False, True], "a plan leaves it as it came out"
    assert es.freeze(graph, ["one.weight:0"], "a test").notes == graph.notes


def test_checks_of_fixed_sizes_are_not_noted() -> None:
    graph = es.trace(Net(checked, one=nn.Linear(8, 6), two=nn.Linear(6, 3)).eval(), torch.randn(4, 8))
    assert not graph.notes
    assert graph.sizes == {"one.weight:0": 6}
