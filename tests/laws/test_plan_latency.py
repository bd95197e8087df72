"""Laws of planning under measured tables: milliseconds are kept, staircases are used, tables travel as data."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import espalier as es
from espalier.core import BudgetError
from espalier.graph import Graph
from espalier.graph.probes.operators import Counts, operators, widest
from espalier.selection import Conditions, Tables, TablesError
from espalier.selection.latency import LatencyModel
from espalier.selection.staircase import Surface

HERE = Conditions("a machine", "eager", "torch", threads=1, batch=1, dtype="float32")


def network(*widths: int) -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise((3, *widths)):
        layers += [nn.Conv2d(one, other, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 4))
    return model, es.trace(model, torch.zeros(2, 3, 8, 8))


def blocks(width: int) -> float:
    """Return the time of a width on a made-up machine: blocks of 16, and twice the time off multiples of 8."""
    return -(-width // 16) * (1.0 if width % 16 == 0 else 1.2 if width % 8 == 0 else 2.0)


def made_up(graph: Graph, factor: float = 1.0) -> Tables:
    """Return tables of that machine, complete: every width of every layer."""
    layers: dict[str, dict[tuple[int, ...], float]] = {}
    for key, (one, full) in widest(operators(graph)).items():
        if one.kind in ("convolution", "addmm"):
            every = itertools.product(*[range(1, width + 1) for width in full])
            layers[key] = {widths: 0.01 * float(np.prod([blocks(w) for w in widths])) for widths in every}
    tables = Tables(HERE, ("addmm", "convolution"), layers, 1.0, factor)
    return dataclasses.replace(tables, dense_ms=LatencyModel.of(graph, tables).ms(graph.sizes))


def exact(graph: Graph, tables: Tables, counts: dict[str, int]) -> float:
    total = 0.0
    for one in operators(graph):
        if one.kind in tables.kinds:
            widths = Counts.of(one.polynomials, len(graph.groups)).values(list(counts.values()))
            total += tables.layers[one.key][tuple(np.rint(widths).astype(int).tolist())]
    return tables.factor * total


@given(st.data())
@settings(max_examples=20)
def test_the_model_adds_up_the_tables(data: st.DataObject) -> None:
    _, graph = network(16, 24, 16)
    tables = made_up(graph, factor=1.3)
    counts = {name: data.draw(st.integers(1, size)) for name, size in graph.sizes.items()}
    model = LatencyModel.of(graph, tables)
    assert model.ms(counts) == pytest.approx(exact(graph, tables, counts))


@pytest.mark.parametrize("strategy", ["uniform", "isomorphic"])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
def test_near_the_best_of_all_plans(strategy: str, ratio: float) -> None:
    """On a lattice small enough to try everything, what is preserved is near the best that the budget allows."""
    model, graph = network(48, 64, 32)
    tables = made_up(graph)
    scores = {name: np.random.default_rng(7).permutation(size) / size for name, size in graph.sizes.items()}
    plan = es.plan(graph, scores, es.Budget(latency_ratio=ratio), strategy=strategy, floor=1, tables=tables)
    limit = ratio * tables.dense_ms
    assert exact(graph, tables, graph.counts(plan)) <= limit * (1 + 1e-9)

    def preserved(counts: tuple[int, ...]) -> float:
        return sum(float(np.sort(scores[n])[-c:].sum()) for n, c in zip(graph.sizes, counts, strict=True))

    ranges = [sorted({*range(8, size + 1, 8), 1, 4}) for size in graph.sizes.values()]
    lattice = [
        c for c in itertools.product(*ranges) if exact(graph, tables, dict(zip(graph.sizes, c, strict=True))) <= limit
    ]
    best = max(map(preserved, lattice))
    assert preserved(tuple(graph.counts(plan).values())) >= (0.7 if strategy == "uniform" else 0.8) * best


def test_the_staircase_decides_the_multiple() -> None:
    model, graph = network(64, 64)
    tables = made_up(graph)
    scores = es.criteria.magnitude(model, graph)
    plan = es.plan(graph, scores, es.Budget(latency_ratio=0.5), tables=tables)
    assert all(count % 16 == 0 for count in graph.counts(plan).values())
    bare = es.plan(graph, scores, es.Budget(latency_ratio=0.5), tables=tables, round_to=1)
    assert sum(graph.counts(plan).values()) >= sum(graph.counts(bare).values())


def test_several_budgets_at_once() -> None:
    model, graph = network(64, 96, 64)
    tables, scores, dense = made_up(graph), es.criteria.magnitude(model, graph), graph.cost()
    budget = es.Budget(latency_ms=0.6 * tables.dense_ms, macs=0.5, params=0.7, size_ratio=0.6)
    plan = es.plan(graph, scores, budget, tables=tables)
    cost = graph.plan_cost(plan)
    assert cost.macs <= 0.5 * dense.macs and cost.params <= 0.7 * dense.params
    assert exact(graph, tables, graph.counts(plan)) <= 0.6 * tables.dense_ms
    tighter = es.plan(graph, scores, es.Budget(latency_ms=0.2 * tables.dense_ms, macs=0.5), tables=tables)
    assert exact(graph, tables, graph.counts(tighter)) <= 0.2 * tables.dense_ms


def test_tables_are_data_and_plan_the_same() -> None:
    model, graph = network(48, 64)
    tables, scores = made_up(graph, 0.7), es.criteria.magnitude(model, graph)
    again = Tables.from_json(tables.to_json())
    assert again == tables
    budget = es.Budget(latency_ratio=0.5)
    assert es.plan(graph, scores, budget, tables=again) == es.plan(graph, scores, budget, tables=tables)
    for text in ("", "[]", '{"layers": {}}', tables.to_json().replace('"dense_ms": ', '"dense_ms": -')):
        with pytest.raises(TablesError, match="no latency tables"):
            Tables.from_json(text)


def test_tables_serve_what_is_cut_from_their_network() -> None:
    model, graph = network(48, 64, 32)
    tables, scores = made_up(graph), es.criteria.magnitude(model, graph)
    plan = es.plan(graph, scores, es.Budget(macs=0.5), round_to=8)
    small = es.cut(model, graph, plan)
    again = es.trace(small, torch.zeros(2, 3, 8, 8))
    left = LatencyModel.of(again, tables).ms(again.sizes)
    assert left == pytest.approx(LatencyModel.of(graph, tables).ms(graph.counts(plan)))


def test_refusals() -> None:
    model, graph = network(32, 32)
    tables, scores = made_up(graph), es.criteria.magnitude(model, graph)
    with pytest.raises(BudgetError, match="needs measured tables"):
        es.plan(graph, scores, es.Budget(latency_ms=1.0))
    with pytest.raises(
        BudgetError, match=r"budget of 0\.001 latency_ms .* cannot be reached: the smallest plan has 0\.0"
    ):
        es.plan(graph, scores, es.Budget(latency_ms=0.001), tables=tables)
    wide = network(48, 32)[1]
    with pytest.raises(TablesError, match="know it up to"):
        LatencyModel.of(wide, tables)
    other = es.trace(model, torch.zeros(2, 3, 10, 10))
    with pytest.raises(TablesError, match="have no times of this network's layer: convolution"):
        LatencyModel.of(other, tables)
    for wrong in ({"latency_ms": 0}, {"latency_ratio": 1.5}, {"latency_ms": float("nan")}, {"latency_ms": True}):
        with pytest.raises(BudgetError, match="latency_"):
            es.Budget(**wrong)


def test_surfaces_interpolate_among_widths_of_one_kind() -> None:
    along = {w: blocks(w) for w in (1, 5, 8, 16, 24, 32, 37, 48, 56, 61, 64)}
    surface = Surface.of({(w,): ms for w, ms in along.items()})
    for width in (16, 32, 48, 64, 24, 40, 56):
        assert surface.at((width,)) == pytest.approx(blocks(width), rel=0.15)
    for width in (17, 33, 41, 60):
        assert surface.at((width,)) > 1.3 * surface.at((width // 16 * 16,))
    grid = {(a, b): blocks(a) * blocks(b) ** 0.5 + a for a in (16, 32, 64) for b in (16, 48, 64)}
    two = Surface.of(grid)
    for widths, ms in grid.items():
        assert two.at(widths) == pytest.approx(ms)
    with pytest.raises(TablesError, match="not at"):
        Surface.of({**grid, (40, 40): 1.0})
