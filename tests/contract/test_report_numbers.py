"""Comparison and latency: the numbers are what they say."""

from __future__ import annotations

import json
import random
import time

import pytest
import torch
from torch import nn

from espalier.core import Cost, Surgery
from espalier.core.run import Measures
from espalier.graph.surgery.operate import operate
from espalier.measure import Comparison, compare, latency, race, size_bytes


class Sleeper(nn.Module):
    """Takes a known time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.zeros(3))
        self.calls: list[bool] = []

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        self.calls.append(self.training or torch.is_grad_enabled())
        time.sleep(self.seconds)
        return x * scale


def test_size_counts_tied_tensors_once_and_persistent_buffers() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    model.register_buffer("cache", torch.zeros(1000), persistent=False)
    assert size_bytes(model) == 4 * 16 + 4 * 16 + 8


def test_a_race_times_both_alike_and_restores_the_mode() -> None:
    slow, fast = Sleeper(0.012), Sleeper(0.003)
    fast.eval()
    found = race(slow, fast, torch.zeros(1), rounds=5)
    assert 11 < found.before.median_ms < 40 and 2.5 < found.after.median_ms < found.before.median_ms
    low, middle, high = found.ratio
    assert 0 < low <= middle <= high < 1
    assert slow.training and not fast.training and not any(slow.calls + fast.calls)


@pytest.mark.parametrize("example", [torch.zeros(2), (torch.zeros(2),), {"x": torch.zeros(2), "scale": 2.0}])
def test_examples_of_every_kind_are_timed(example: object) -> None:
    model = Sleeper(0.0)
    assert race(model, model, example, rounds=1).before.median_ms > 0


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    assert latency.median_interval([float(i) for i in range(15)]) == (3.0, 7.0, 11.0)
    assert latency.median_interval([2.0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("noise", "rounds"), [(0.0, 10), (0.5, 40)])
def test_rounds_go_on_while_the_timings_vary_too_much(
    noise: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(0)
    monkeypatch.setattr(latency, "repeats_of", lambda call: 1)
    monkeypatch.setattr(latency, "timed", lambda call, repeats: call() * (1 + noise * draw.uniform(-1, 1)))
    found = latency.race_runs(lambda: 2.0, lambda: 1.0, 10, within=0.01, most=4)
    assert found.rounds == rounds and 0.3 < found.ratio[1] < 0.7


def test_a_comparison_says_what_its_score_is_of() -> None:
    measures = [Measures(accuracy=score) for score in (0.5, 0.25)]
    rows = list(Comparison(*measures, metric="mean_iou").rows())
    assert [(row.label, row.before, row.after) for row in rows] == [("test mean iou, %", "50.00", "25.00")]


def test_a_comparison_is_a_table_and_data() -> None:
    before, after = nn.Linear(100, 10), nn.Linear(50, 10)
    costs = (Cost(macs=1000, params=1010, activations=110), Cost(macs=500, params=510, activations=60))
    found = compare(before, after, torch.zeros(2, 100), latency=False, costs=costs)
    text = str(found)
    assert "1,010" in text and "510" in text and "0.505" in text and "4,040" in text and "latency" not in text
    data = json.loads(json.dumps(found.to_data()))
    assert data["before"]["macs"] == 1000 and data["ratios"]["macs"] == 0.5 and data["latency_ratio"] is None


def test_compare_traces_when_the_costs_are_unknown() -> None:
    before = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    after = operate(before, Surgery())
    found = compare(before, after, torch.zeros(2, 8), rounds=3)
    assert found.before.macs == found.after.macs == 8 * 6 + 6 * 3
    assert found.before.params == 8 * 6 + 6 + 6 * 3 + 3
    assert found.latency_ratio is not None and "thread" in found.conditions
    assert "latency, ms" in str(found) and "[" in str(found)
