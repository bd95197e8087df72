"""Laws of measuring: tables cover the network, travel, and are refused elsewhere; a latency budget is closed in on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier import backends, measure
from espalier.core import BudgetError, ModelError
from espalier.graph.probes.operators import operators
from espalier.measure.layers import along, design, example_of
from espalier.selection import Tables, TablesError
from espalier.selection.latency import LatencyModel
from espalier.selection.staircase import BLOCKS, kind


def small_network() -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 32, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    return model, es.trace(model, torch.zeros(2, 3, 8, 8))


class Simulated:
    """A backend that takes exactly as long as its own law says, for layers and for networks."""

    name = "simulated"
    clock = 0.0

    def __init__(self, overhead: float = 1.0) -> None:
        self.overhead = overhead

    def unavailable(self) -> None:
        return None

    def version(self) -> str:
        return "1"

    def times(self, kind: str) -> bool:
        return kind in ("convolution", "addmm")

    def time(self, calls: Any, threads: int, sweeps: int) -> list[float]:
        return [self._ms(one.shape("weight") if one.kind == "convolution" else one.shape("mat2")) for one in calls]

    def prepare(self, model: nn.Module, example: Tensor, threads: int) -> Any:
        layers = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        seconds = 1e-3 * sum(self._ms(weight.shape) for weight in layers) * self.overhead ** len(layers[0])

        def run() -> list[Tensor]:
            Simulated.clock += seconds
            return []

        return run

    @staticmethod
    def _ms(shape: Any) -> float:
        width = shape[0]
        return 0.1 + 0.01 * -(-width // 16) * shape[1] * (1.0 if width % 16 == 0 else 2.0)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    one = Simulated(overhead=1.004)  # whole networks deviate from the sum of their layers, the more the wider they are
    monkeypatch.setitem(backends.BACKENDS, "simulated", one)
    monkeypatch.setattr("time.perf_counter", lambda: Simulated.clock)
    yield one


def planner(graph: Any, scores: Any, budget: es.Budget) -> Any:
    return lambda tables: es.plan(graph, scores, budget, tables=tables, floor=1)


@pytest.mark.parametrize("backend", ["eager", "onnxruntime"])
def test_tables_cover_the_network(backend: str) -> None:
    model, graph = small_network()
    told: list[tuple[int, int]] = []
    tables = measure.latency_tables(model, graph, backend=backend, on_progress=lambda *now: told.append(now))
    assert Tables.from_json(tables.to_json()) == tables
    assert {one.key for one in operators(graph) if one.kind in tables.kinds} == set(tables.layers)
    assert all(tables.layers.values()) and tables.dense_ms > 0
    assert LatencyModel.of(graph, tables).ms(graph.sizes) == pytest.approx(tables.dense_ms)
    assert told[-1][0] == told[-1][1] == sum(len(rows) for rows in tables.layers.values())
    measure.check_tables(tables, model, graph)


def test_foreign_tables_are_refused(simulated: Simulated) -> None:
    model, graph = small_network()
    tables = measure.latency_tables(model, graph, backend="simulated")
    for name in ("machine", "version", "dtype"):
        foreign = dataclasses.replace(tables, conditions=dataclasses.replace(tables.conditions, **{name: "other"}))
        with pytest.raises(TablesError, match=f"measured elsewhere: {name} 'other'"):
            measure.check_tables(foreign, model, graph)
        measure.check_tables(foreign, model, graph, anywhere=True)
    with pytest.raises(TablesError, match="no times of this network's layer"):
        measure.check_tables(tables, model, es.trace(model, torch.zeros(2, 3, 12, 12)))


@pytest.mark.parametrize("ratio", [0.4, 0.5, 0.7])
def test_a_latency_budget_is_met(simulated: Simulated, ratio: float) -> None:
    model, graph = small_network()
    tables = measure.latency_tables(model, graph, backend="simulated")
    scores, budget = es.criteria.magnitude(model, graph), es.Budget(latency_ratio=ratio)
    met = measure.meet(model, graph, planner(graph, scores, budget), budget=budget, tables=tables)
    share = met.trials[[t.plan for t in met.trials].index(met.plan)].ratio[1] / ratio
    assert share <= 1.0
    assert met.reached == (share >= 0.95)
    assert met.reached or "not within 5% below the budget" in met.note
    assert "31 interleaved rounds" in met.note and "simulated" in met.note


def test_a_resumed_search_repeats_no_trial_and_plans_the_same(simulated: Simulated) -> None:
    model, graph = small_network()
    tables = measure.latency_tables(model, graph, backend="simulated")
    tables = tables.recalibrated(1.0, 0.6)  # wrong at first, so that it takes several trials
    scores, budget, kept = es.criteria.magnitude(model, graph), es.Budget(latency_ratio=0.5), []
    choose = planner(graph, scores, budget)
    first = measure.meet(model, graph, choose, budget=budget, tables=tables, trials=measure.Trials(write=kept.append))
    assert len(first.trials) > 1 and tuple(kept) == first.trials
    assert min(t.measured_ms for t in first.trials) <= 0.5 * tables.dense_ms < first.trials[0].measured_ms
    stored = json.loads(json.dumps([trial.to_data() for trial in kept]))
    for cut in range(1, len(stored) + 1):
        new: list[measure.Trial] = []
        known = measure.Trials([measure.Trial.from_data(data) for data in stored[:cut]], new.append)
        again = measure.meet(
            model, graph, choose, budget=budget, tables=Tables.from_json(tables.to_json()), trials=known
        )
        assert [trial.plan for trial in again.trials] == [trial.plan for trial in first.trials]
        assert (again.plan, again.reached, len(new)) == (first.plan, first.reached, len(stored) - cut)


def test_what_stops_it_is_said(simulated: Simulated) -> None:
    model, graph = small_network()
    tables = measure.latency_tables(model, graph, backend="simulated")
    scores = es.criteria.magnitude(model, graph)
    with pytest.raises(BudgetError, match="latency"):
        measure.meet(
            model, graph, planner(graph, scores, es.Budget(macs=0.5)), budget=es.Budget(macs=0.5), tables=tables
        )
    with pytest.raises(BudgetError, match="cannot be reached"):
        budget = es.Budget(latency_ratio=0.001)
        measure.meet(model, graph, planner(graph, scores, budget), budget=budget, tables=tables)
    budget = es.Budget(latency_ratio=0.5)
    coarse = lambda tables: es.plan(graph, scores, budget, tables=tables, round_to=16)  # noqa: E731
    met = measure.meet(model, graph, coarse, budget=budget, tables=tables)
    assert not met.reached and "not within 5% below the budget: " in met.note
    with pytest.raises(TablesError, match="no trial"):
        measure.Trial.from_data({"plan": "{}"})


def test_the_design_covers_every_kind_of_width() -> None:
    for width in (1, 3, 16, 24, 100, 512, 2048):
        tried = along(width)
        assert tried[-1] == width and len(tried) <= 40
        assert {kind(w) for w in tried} == {b for b in BLOCKS if b <= width}
        if width > 64:
            gaps = [
                b - a
                for a, b in zip([w for w in tried if w % 16 == 0], [w for w in tried if w % 16 == 0][1:], strict=False)
            ]
            assert max(gaps) <= max(16, width / 12)
    pairs = design((512, 256))
    assert (512, 256) in pairs and (64, 32) in pairs and len(pairs) < 120


def test_the_example_takes_any_batch() -> None:
    model, graph = small_network()
    assert example_of(graph, 5).shape == (5, 3, 8, 8)
    called = es.trace(model, torch.zeros(2, 3, 8, 8), lambda m, x: m(x))
    with pytest.raises(ModelError, match="forward_fn"):
        example_of(called, 1)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "compile"])
def test_races_run_on_every_backend(backend: str) -> None:
    model, _ = small_network()
    timed = measure.race(model, model, torch.zeros(1, 3, 8, 8), rounds=3, backend=backend, threads=1)
    assert timed.backend == backend and timed.ratio[1] > 0
    assert (
        f"latency: {backend}, 1 thread"
        in str(measure.compare(model, model, torch.zeros(2, 3, 8, 8), rounds=2, backend=backend))
        or torch.get_num_threads() != 1
    )
