"""Laws of recovery: both networks are walked in step, and a walk that goes wrong changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from espalier import cut, trace
from espalier.core import ModelError, Plan
from espalier.recovery import least_squares
from espalier.recovery.walks import Walk

from .recovery_cases import convolutional

pytestmark = pytest.mark.usefixtures("seeded")


def test_an_error_in_the_middle_changes_nothing():
    dense, small, graph, plan, data = convolutional()
    before = copy.deepcopy(small.state_dict())

    def fails(module: nn.Module, args: tuple) -> None:
        if len(args[0]) == 7:
            raise RuntimeError("this batch is cursed")

    dense.rest[5].register_forward_pre_hook(fails)
    dense.train()
    with pytest.raises(RuntimeError, match="cursed"):
        least_squares(dense, small, graph, plan, [*data, (torch.randn(7, 3, 8, 8), None)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert dense.training and dense.rest[5].training


class Branching(nn.Module):
    """Batches of more than four samples take another layer."""

    def __init__(self, longer: bool) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)
        self.longer = longer

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        if len(x) <= 4:
            return self.b(x)
        return self.a(x.tanh() if self.longer else x)


@pytest.mark.parametrize("longer", [True, False])
def test_a_forward_pass_that_goes_another_way_is_refused(longer):
    dense = Branching(longer).eval()
    graph = trace(dense, torch.randn(2, 4))
    plan = Plan({"first.weight:0": (0, 1, 2)})
    small = cut(dense, graph, plan)
    before = copy.deepcopy(small.state_dict())
    with pytest.raises(ModelError, match="another way"):
        least_squares(dense, small, graph, plan, [(torch.randn(n, 4), None) for n in (2, 6)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_a_cut_network_that_calls_other_functions_is_left_alone():
    dense, small, graph, plan, data = convolutional()
    small.rest[2].register_forward_pre_hook(lambda module, args: (args[0] * 1.0,))
    before = copy.deepcopy(small.state_dict())
    report = least_squares(dense, small, graph, plan, data)
    assert len(report) == 3
    assert all("other functions" in line.reason for line in report)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())


def test_a_walk_drops_what_no_later_stop_wants():
    x = torch.ones(3)
    walk = Walk(lambda: x.sin().cos().tan().exp(), stops=(1, 2, 3), keep={0: 2, 1: 3}, after=False)
    kept = []
    while (stop := walk.advance()) is not None:
        kept.append((stop.name, sorted(stop.kept)))
    assert kept == [("cos", [0]), ("tan", [0, 1]), ("exp", [1])]
    assert walk.advance() is None


def test_walks_run_one_at_a_time_and_end():
    import threading

    before = threading.active_count()
    dense, small, graph, plan, data = convolutional()
    least_squares(dense, small, graph, plan, data)
    assert threading.active_count() == before
