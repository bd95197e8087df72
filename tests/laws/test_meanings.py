"""One attribute, two meanings: a size that gets a new value in one place must mean the same in every other place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import espalier as es

from ..patterns.base import Net
from ..patterns.masking import close, masked_outputs, outputs

Use = Callable[[Net, Tensor, Tensor], Tensor]  # (the network, hidden units (b, 8, 8), another layer's) -> (b, 8, k)


def whole(net: Net, y: Tensor, z: Tensor) -> Tensor:
    """The stop of a slice is the width: not one position is cut off."""
    return z[..., : net.c]


def beyond(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z[..., : 2 * net.c]


def from_the_end(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z[..., -net.c :]


def tokens(net: Net, y: Tensor, z: Tensor) -> Tensor:
    """As many tokens as units: the tokens must all stay."""
    return z[:, : net.c]


def one_token(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * z[:, net.c - 1 : net.c]


def chosen(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * z.select(1, net.c - 1)[:, None]


def largest(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * z.topk(net.c // 2, dim=1)[0].mean(1, keepdim=True)


def windows(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * z.unfold(1, net.c // 2, 1).amax(-1).mean(1, keepdim=True)


def pooled(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * F.avg_pool1d(z.mT, net.c // 2, 1).mean(-1)[:, None]


def rolled(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * z.roll(net.c // 2, 1)


def width_of_another(net: Net, y: Tensor, z: Tensor) -> Tensor:
    """The stop is another layer's width, which happens to be this one's."""
    return z[..., : y.shape[-1]]


def window_of_another(net: Net, y: Tensor, z: Tensor) -> Tensor:
    return z * z.unfold(1, y.shape[-1] // 2, 1).amax(-1).mean(1, keepdim=True)


def fraction(net: Net, y: Tensor, z: Tensor) -> Tensor:
    """A number that is a factor, not a count: the function follows it, and says so."""
    return z / net.c


USES = (
    whole,
    beyond,
    from_the_end,
    tokens,
    one_token,
    chosen,
    largest,
    windows,
    pooled,
    rolled,
    width_of_another,
    window_of_another,
    fraction,
)


def made(use: Use) -> tuple[nn.Module, Tensor]:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.one(x).unflatten(-1, (net.c, 2)).sum(-1)  # this gives c its new value
        return net.head(use(net, y, net.two(x))) + net.tail(y.relu())

    torch.manual_seed(0)
    parts = {"one": nn.Linear(4, 16), "two": nn.Linear(4, 8), "head": nn.Linear(8, 4), "tail": nn.Linear(8, 4)}
    return Net(run, c=8, **parts).double().eval(), torch.randn(2, 8, 4, dtype=torch.float64)


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@pytest.mark.parametrize("wanted", [(4, 6), (6, 4)], ids=str)
def test_every_cut_is_proved_and_right_without_proof(use: Use, wanted: tuple[int, int]) -> None:
    model, example = made(use)
    graph = es.trace(model, example)
    counts = graph.feasible(dict(zip(("one.weight:0", "two.weight:0"), wanted, strict=True)))
    keep = {name: tuple(range(graph.sizes[name] - count, graph.sizes[name])) for name, count in counts.items()}
    assert any(count < graph.sizes[name] for name, count in counts.items()), "one of the widths can be cut"
    small = es.cut(model, graph, es.Plan(keep), prove=False)
    if use is not fraction:
        assert close(outputs(small, example), masked_outputs(made(use)[0], graph.groups, keep, example))
    assert es.cut(model, graph, es.Plan(keep)).espalier_proof == "float64"


def test_the_number_of_a_dimension_is_no_size() -> None:
    """A slice along dimension 3 at a bound of 3: only the bound follows a cut."""

    def run(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        return net.head(torch.cat([y[..., : net.c] * y[..., net.c :], y], -1))

    model = Net(run, c=3, one=nn.Linear(4, 6), head=nn.Linear(9, 4))
    graph = es.trace(model, torch.randn(2, 5, 1, 4))
    counts = graph.feasible(dict.fromkeys(graph.groups, 2))
    plan = es.Plan({name: tuple(range(graph.sizes[name] - n, graph.sizes[name])) for name, n in counts.items()})
    assert es.cut(model, graph, plan).c == 2
