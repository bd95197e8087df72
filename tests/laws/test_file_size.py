"""Laws of file sizes: the planned size is what the file system says, and a budget of bytes is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import BudgetError, Plan
from espalier.graph.file_size import FileSize
from espalier.graph.files import stored_tensors

from ..patterns import PATTERNS, Pattern
from ..patterns.masking import build, counted_plan

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.*weight_norm. is deprecated")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_the_planned_size_is_the_files(pattern: Pattern, tmp_path: Path) -> None:
    model, example = build(pattern)
    graph = es.trace(model, example)
    plan = Plan(counted_plan(graph, graph.groups, seed=3), graph.fingerprint)
    if pattern.refused:
        pytest.skip(pattern.refused)
    for wanted in (Plan({}), plan):
        es.save(es.cut(model, graph, wanted, prove=False), tmp_path / "small.safetensors")
        assert FileSize(graph).of_plan(wanted) == (tmp_path / "small.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_types_names_and_earlier_cuts_count(dtype: torch.dtype, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(9, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5)).to(dtype)
    model.espalier_source = 'espalier:"naïve"\n'  # type: ignore[assignment]
    model.register_buffer("größe", torch.zeros(3, dtype=torch.bool))
    example = torch.randn(2, 9, dtype=dtype)
    for kept in (range(1, 62), range(0, 60, 7)):
        graph = es.trace(model, example)
        plan = Plan({next(iter(graph.groups)): tuple(kept)}, graph.fingerprint)
        planned = FileSize(graph).of_plan(plan)
        model = es.cut(model, graph, plan, prove=False)
        es.save(model, tmp_path / "small.safetensors")
        assert planned == (tmp_path / "small.safetensors").stat().st_size


def cnn() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return es.model("espalier:cifar_resnet20"), torch.zeros(2, 3, 32, 32)


@pytest.mark.parametrize("budget", (es.Budget(size_ratio=0.4), es.Budget(size_bytes=300_000, macs=0.6)))
def test_a_budget_of_bytes_is_kept(budget: es.Budget, tmp_path: Path) -> None:
    model, example = cnn()
    graph = es.trace(model, example)
    plan = es.plan(graph, es.criteria.magnitude(model, graph), budget)
    small = es.cut(model, graph, plan, prove=False)
    es.save(model, tmp_path / "dense.safetensors")
    es.save(small, tmp_path / "small.safetensors")
    size = (tmp_path / "small.safetensors").stat().st_size
    limit = budget.size_bytes or (budget.size_ratio or 1.0) * (tmp_path / "dense.safetensors").stat().st_size
    assert 0.99 * limit <= size <= limit
    assert graph.plan_cost(plan).macs <= (budget.macs or 1.0) * graph.cost().macs


def test_the_quick_size_is_near_the_exact_one() -> None:
    graph = es.trace(*cnn())
    size, rng = FileSize(graph), np.random.default_rng(0)
    for _ in range(8):
        counts = graph.feasible({name: int(rng.integers(1, n + 1)) for name, n in graph.sizes.items()})
        plan = Plan({name: tuple(range(n)) for name, n in counts.items()}, graph.fingerprint)
        assert size.of_counts(list(counts.values())) == pytest.approx(size.of_plan(plan), rel=0.03)


def test_bytes_below_the_smallest_file_are_refused() -> None:
    model, example = cnn()
    graph = es.trace(model, example)
    with pytest.raises(BudgetError, match=r"budget of 20,000 size_bytes .* cannot be reached"):
        es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(size_bytes=20_000))
    with pytest.raises(BudgetError, match="whole number of bytes; a ratio is size_ratio"):
        es.Budget(size_bytes=0.5)  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match=r"size_ratio=2: a ratio is in \(0, 1\]"):
        es.Budget(size_ratio=2)


def test_the_skeleton_has_no_data() -> None:
    graph = es.trace(*cnn())
    assert all(tensor.is_meta for tensor in stored_tensors(graph.skeleton).values())
