"""One law a pattern: what is cut is right, by the engine's own proof and by an oracle that does not know the engine."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import espalier as es

from ..patterns import BY_NAME, PATTERNS, Pattern
from ..patterns.masking import build, call, close, counted_plan, free_of_statistics, masked_outputs, outputs
from ..patterns.other_sizes import differing

AT_ITS_EXAMPLE_ALONE = {"hidden_attribute": "at other sizes its dense network reads channels as examples"}

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:.*weight_norm. is deprecated")


@dataclass
class Case:
    """A pattern, traced once, and its cut, made once."""

    pattern: Pattern

    @cached_property
    def graph(self) -> Any:
        return es.trace(*build(self.pattern))

    @cached_property
    def plan(self) -> es.Plan:
        keep = counted_plan(self.graph, self.graph.groups, seed=len(self.pattern.name))
        return es.Plan(keep, self.graph.fingerprint)

    @cached_property
    def example(self) -> Any:
        return build(self.pattern)[1]

    @cached_property
    def small(self) -> nn.Module:
        return es.cut(build(self.pattern)[0], self.graph, self.plan, prove=True)

    def need_groups(self) -> None:
        if self.pattern.refused:
            pytest.skip(self.pattern.refused)
        if not self.pattern.expect and (not self.graph.groups or not self.plan.keep):
            pytest.skip("nothing to prune, as it should be")


@pytest.fixture(scope="module", params=PATTERNS, ids=lambda pattern: pattern.name)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_finds_the_groups(case: Case) -> None:
    found = [name for name, group in case.graph.groups.items() if group.size > 1]
    assert len(found) >= case.pattern.expect, f"found {found}; frozen: {case.graph.frozen}"


def test_is_proved_and_smaller(case: Case) -> None:
    case.need_groups()
    dense = build(case.pattern)[0]
    assert type(case.small) is type(dense)
    assert sum(p.numel() for p in case.small.parameters()) < sum(p.numel() for p in dense.parameters())
    assert set(case.plan.keep), "a plan at one half keeps every unit"


def test_equals_zeros_in_the_dense_network(case: Case) -> None:
    case.need_groups()
    if case.pattern.unmaskable:
        pytest.skip(case.pattern.unmaskable)
    graph = case.graph
    chosen = list(graph.groups) if case.pattern.zero_ok else free_of_statistics(graph)
    for seed in range(3):
        keep = counted_plan(graph, chosen, seed, ratio=(0.5, 0.3, 0.75)[seed])
        small = es.cut(build(case.pattern)[0], graph, es.Plan(keep, graph.fingerprint), prove=False)
        masked = masked_outputs(build(case.pattern)[0], graph.groups, keep, case.example)
        assert close(outputs(small, case.example), masked), f"differs from zeros under {keep}"


def test_equals_zeros_at_other_sizes_of_the_input(case: Case) -> None:
    case.need_groups()
    if case.pattern.unmaskable or case.pattern.name in AT_ITS_EXAMPLE_ALONE:
        pytest.skip(case.pattern.unmaskable or AT_ITS_EXAMPLE_ALONE[case.pattern.name])
    chosen = list(case.graph.groups) if case.pattern.zero_ok else free_of_statistics(case.graph)
    keep = counted_plan(case.graph, chosen, seed=0)
    small = es.cut(build(case.pattern)[0], case.graph, es.Plan(keep, case.graph.fingerprint), prove=False)
    assert not differing(lambda: build(case.pattern)[0], small, case.graph.groups, keep, case.example)


def test_replays_from_json_on_another_copy(case: Case) -> None:
    case.need_groups()
    plan = es.Plan.from_json(case.plan.to_json())
    again = es.cut(build(case.pattern)[0], case.graph, plan, prove=False)
    expected = outputs(case.small, case.example)
    assert plan == case.plan
    assert close(outputs(again, case.example), expected, 0.0)
    if case.pattern.name != "weight_norm_old":  # PyTorch itself cannot deepcopy one
        assert close(outputs(copy.deepcopy(case.small), case.example), expected, 0.0)


def test_cuts_compose_and_survive_a_file(case: Case, tmp_path: Path) -> None:
    case.need_groups()
    graph = es.trace(case.small, case.example)
    plan = es.Plan(counted_plan(graph, graph.groups, seed=1), graph.fingerprint)
    smaller = es.cut(case.small, graph, plan, prove=True)
    es.save(smaller, tmp_path / "small.safetensors")
    loaded = es.load(tmp_path / "small.safetensors", build(case.pattern, seed=1)[0])
    assert not loaded.training or loaded.eval() is loaded
    assert close(outputs(loaded.eval(), case.example), outputs(smaller, case.example), 0.0)


def test_trains_after_the_cut(case: Case) -> None:
    case.need_groups()
    trainable = {name for name, p in build(case.pattern)[0].named_parameters() if p.requires_grad}
    model = es.cut(build(case.pattern)[0], case.graph, case.plan, prove=False).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        leaves = torch.utils._pytree.tree_leaves(call(model, case.example))
    sum(leaf.pow(2).sum() for leaf in leaves).backward()
    named = dict(model.named_parameters())
    assert {name for name, p in named.items() if p.requires_grad} == trainable
    assert all(p.grad is None or p.grad.shape == p.shape for p in named.values())
    assert any(p.grad is not None and bool(p.grad.ne(0).any()) for p in named.values())


def test_the_oracle_sees_a_wrong_pairing() -> None:
    pattern = BY_NAME["conv2d"]
    graph = es.trace(*build(pattern))
    keep = counted_plan(graph, graph.groups, seed=0)
    model, example = build(pattern)
    small = es.cut(model, graph, es.Plan(keep, graph.fingerprint), prove=False)
    masked = masked_outputs(build(pattern)[0], graph.groups, keep, example)
    assert close(outputs(small, example), masked)
    with torch.no_grad():
        small.two.weight.copy_(small.two.weight.roll(1, 1))
    assert not close(outputs(small, example), masked)
