"""Laws of recovery: a layer makes up for the shortcut beside it, and never for what others read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from espalier import cut, trace
from espalier.core import Plan
from espalier.recovery import Fit, least_squares
from espalier.recovery.sites import find_sites, scout

from .recovery_cases import CLOSE, EXACT, batches, doubled

pytestmark = pytest.mark.usefixtures("seeded")


class Residual(nn.Module):
    """Two linear branches on a stream; what the first one loses the second one sees."""

    def __init__(self) -> None:
        super().__init__()
        self.up1, self.down1 = nn.Linear(6, 8), nn.Linear(8, 6)
        self.up2, self.down2, self.norm = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down1(self.up1(x))
        return self.norm(self.down2(self.up2(x))) + x


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_branch_makes_up_for_its_shortcut(shortcuts):
    dense = Residual().double().eval()
    nn.init.uniform_(dense.norm.weight, 0.5, 2.0)
    data = batches((30, 6))
    graph = trace(dense, data[0][0])
    plan = Plan({"up1.weight:0": (0, 2, 5)})  # three of eight: the stream loses rank
    small = cut(dense, graph, plan)
    fit = Fit(ridges=(1e-13,), shortcuts=shortcuts)
    least_squares(dense, small, graph, plan, data, fit=fit)
    error = (small(data[0][0]) - dense(data[0][0])).abs().max().item()
    assert (error < 1e-5) == shortcuts


class ReadTwice(nn.Module):
    """Batch norm is not alone in reading the convolution: its running mean is no place for an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3, bias=False)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        return torch.cat([self.norm(x), x.T.T], 1)


def test_an_offset_that_others_would_miss_is_not_hidden_in_a_norm():
    dense = ReadTwice().double().eval()
    with torch.no_grad():
        dense.first.weight[4:] = 0.0
        dense.first.bias[4:] = 2.0
    data = batches((30, 4))
    graph = trace(dense, data[0][0])
    plan = Plan({"first.weight:0": (0, 1, 2, 3)})
    small = cut(dense, graph, plan)
    least_squares(dense, small, graph, plan, data, fit=EXACT)
    assert torch.equal(small.norm.running_mean, dense.norm.running_mean)


class Added(nn.Module):
    """Something is added to a layer's output; ``write`` changes it on the way."""

    def __init__(self, write: bool) -> None:
        super().__init__()
        self.first, self.second, self.write = nn.Linear(4, 4), nn.Linear(4, 4), write

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.second(x)
        if self.write:
            x.view(-1).mul_(2.0)
        return y + x


@pytest.mark.parametrize("write", [True, False])
def test_what_is_written_into_on_the_way_is_no_shortcut(write):
    model = Added(write)
    sites, _ = find_sites(scout(model, lambda: model(torch.randn(2, 4))), scales=False)
    assert [site.addend is None for site in sites] == [True, write]


class Halves(nn.Module):
    """One half of an activation is added to what a layer makes of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up, self.down = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.down(self.up(a).relu()) + b


def test_a_piece_of_an_activation_is_no_shortcut():
    dense = Halves().double().eval()
    doubled(dense.up)
    data = batches((30, 4))
    graph = trace(dense, data[0][0])
    plan = Plan({"up.weight:0": (0, 2, 3, 6)})
    small = cut(dense, graph, plan)
    least_squares(dense, small, graph, plan, data, fit=EXACT)
    torch.testing.assert_close(small(data[0][0]), dense(data[0][0]), **CLOSE)
