"""One operator at a time: what it does to the axis that it works along, and that it leaves the other axes free."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import espalier as es

from ..patterns import vision
from ..patterns.base import Net
from ..patterns.masking import counted_plan

Along = Callable[[Tensor, int], Tensor]

STATISTIC: dict[str, Along] = {
    "max": lambda y, d: y.max(d)[0],
    "min": lambda y, d: y.min(dim=d).values,
    "max_keepdim": lambda y, d: y.max(d, keepdim=True)[0].squeeze(d),
    "max_of_all": lambda y, d: y.max() + 0 * y.sum(d),
    "amax": lambda y, d: y.amax(d),
    "aminmax": lambda y, d: y.aminmax(dim=d).max,
    "logsumexp": lambda y, d: y.logsumexp(d),
    "mean": lambda y, d: y.mean(d),
    "std": lambda y, d: y.std(d),
    "var_mean": lambda y, d: torch.var_mean(y, d, correction=0)[0],
    "std_mean": lambda y, d: torch.std_mean(y, d)[1],
    "softmax": lambda y, d: y.softmax(d).square().sum(d),
    "share_above": lambda y, d: (y > 0.1).to(y.dtype).mean(d),
}
SUM: dict[str, Along] = {
    "norm": lambda y, d: y.norm(dim=d),
    "norm_of_order_3": lambda y, d: torch.linalg.vector_norm(y, 3, dim=d),
    "largest_magnitude": lambda y, d: torch.linalg.vector_norm(y, float("inf"), dim=d),
    "how_many": lambda y, d: y.relu().count_nonzero(d),
    "how_many_above": lambda y, d: (y < 0.3).sum(d),
    "nansum": lambda y, d: y.nansum(d),
    "whole_numbers": lambda y, d: y.round().long().sum(d),
    "normalised": lambda y, d: F.normalize(y, dim=d).sum(d),
}
FROZEN: dict[str, Along] = {
    "place": lambda y, d: y.max(d)[1],
    "argmax": lambda y, d: y.argmax(d),
    "argsort": lambda y, d: y.argsort(d).amax(d),
    "median": lambda y, d: y.median(d)[0],
    "nanmedian": lambda y, d: y.nanmedian(d)[0],
    "quantile": lambda y, d: y.quantile(0.3, dim=d),
    "mode": lambda y, d: y.round().mode(d)[0],
    "kthvalue": lambda y, d: y.kthvalue(2, d)[0],
    "topk": lambda y, d: y.topk(2, d)[0].sum(d),
    "prod": lambda y, d: y.prod(d),
    "any": lambda y, d: (y > 0).any(d),
    "all": lambda y, d: (y > -0.5).all(d),
    "cumprod": lambda y, d: y.cumprod(d).sum(d),
    "cummax": lambda y, d: y.cummax(d)[0].sum(d),
    "logcumsumexp": lambda y, d: y.logcumsumexp(d).sum(d),
    "smallest_magnitude": lambda y, d: torch.linalg.vector_norm(y, float("-inf"), dim=d),
    "inverse_norm": lambda y, d: torch.linalg.vector_norm(y, -1, dim=d),
    "windows": lambda y, d: y.unfold(d, 2, 1).sum(-1).sum(d),
    "differences": lambda y, d: y.diff(dim=d).abs().sum(d),
    "spectrum": lambda y, d: torch.fft.rfft(y, dim=d).abs().sum(d),
}
EVERY = {**STATISTIC, **SUM, **FROZEN}

PAIR: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool]] = {
    # name: (what is computed from two tensors of one shape, whether it is a statistic)
    "cdist": (torch.cdist, False),
    "cdist_of_order_1": (lambda a, b: torch.cdist(a, b, p=1.0), False),
    "pairwise_distance": (F.pairwise_distance, False),
    "cosine_similarity": (lambda a, b: F.cosine_similarity(a, b, dim=-1), False),
    "mse": (F.mse_loss, True),
    "mse_sum": (lambda a, b: F.mse_loss(a, b, reduction="sum"), False),
    "smooth_l1": (F.smooth_l1_loss, True),
    "huber": (F.huber_loss, True),
    "binary_cross_entropy": (lambda a, b: F.binary_cross_entropy(a.sigmoid(), b.sigmoid()), True),
    "addbmm": (lambda a, b: torch.addbmm(a.new_zeros(()), a, b.mT), False),
}


def proved(model: nn.Module, graph: es.Graph, example: Tensor) -> None:
    for seed, ratio in ((0, 0.5), (1, 0.75)):
        plan = es.Plan(counted_plan(graph, graph.groups, seed, ratio))
        assert es.cut(model, graph, plan).espalier_proof == "float64"


def alone(along: Along, dim: int) -> tuple[nn.Module, Tensor]:
    def run(net: Net, x: Tensor) -> Tensor:
        y = net.one(x)
        found = along(y, dim).to(y.dtype)
        return net.two(found).relu() if dim == 1 else net.head(x) * found[..., None]

    torch.manual_seed(0)
    model = Net(run, one=nn.Linear(4, 8), two=nn.Linear(8, 4), head=nn.Linear(4, 4))
    return model.double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)


@pytest.mark.parametrize("name", EVERY)
def test_along_channels(name: str) -> None:
    model, example = alone(EVERY[name], -1)
    graph = es.trace(model, example)
    assert ("one.weight:0" in graph.groups) == (name not in FROZEN), graph.frozen
    if name not in FROZEN:
        assert graph.groups["one.weight:0"].statistics == (name in STATISTIC)
        proved(model, graph, example)


@pytest.mark.parametrize("name", sorted(EVERY.keys() - {"max_of_all"}))
def test_along_tokens(name: str) -> None:
    model, example = alone(EVERY[name], 1)
    graph = es.trace(model, example)
    assert not graph.groups["one.weight:0"].statistics
    proved(model, graph, example)


@pytest.mark.parametrize("name", PAIR)
def test_two_tensors_meet(name: str) -> None:
    compare, statistic = PAIR[name]
    torch.manual_seed(0)
    model = Net(lambda net, x: compare(net.one(x), net.two(x)), one=nn.Linear(4, 8), two=nn.Linear(4, 8))
    model, example = model.double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    graph = es.trace(model, example)
    (group,) = graph.groups.values()
    assert {"one.weight", "two.weight"} <= {slot.tensor for slot in group.slots}
    assert group.statistics == statistic
    proved(model, graph, example)


def test_a_sparse_product_keeps_columns_apart() -> None:
    mix = torch.eye(5, dtype=torch.float64).roll(1, 0).to_sparse()
    model = Net(lambda net, x: net.two(torch.sparse.mm(mix, net.one(x))), one=nn.Linear(4, 8), two=nn.Linear(8, 4))
    model, example = model.double().eval(), torch.randn(5, 4, dtype=torch.float64)
    graph = es.trace(model, example)
    assert list(graph.groups) == ["one.weight:0"]
    proved(model, graph, example)


def test_what_stands_in_for_torchvision_computes_what_it_does() -> None:
    ops, x, weight = vision.operators(), torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3)
    given = (torch.zeros(2, 18, 6, 6), torch.ones(2, 9, 6, 6), torch.zeros(4), 1, 1, 1, 1, 1, 1, 1, 1, True)
    torch.testing.assert_close(ops.deform_conv2d(x, weight, *given), F.conv2d(x, weight, padding=1))
    ramp = torch.arange(8.0).expand(1, 1, 8, 8).contiguous()
    pooled = ops.roi_align(ramp, torch.tensor([[0, 2.0, 2.0, 6.0, 6.0]]), 1.0, 2, 2, 1, True)
    torch.testing.assert_close(pooled, torch.tensor([2.5, 4.5]).expand(1, 1, 2, 2))
