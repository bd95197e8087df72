"""What planning refuses, and what it says then."""

from __future__ import annotations

import pytest
import torch

from espalier.core import Budget, BudgetError, PlanError, UnknownNameError
from espalier.selection import plan

from .plan_chain import Chain, scores_of


def test_a_refusal_names_what_is_frozen_and_the_smallest_reachable():
    graph = Chain([4, 4], [1, 1], ends=(3, 1000))
    graph.shapes["l2.weight"] = (1000, 4)
    with pytest.raises(BudgetError) as refused:
        plan(graph, scores_of(graph, 0), Budget(macs=0.1))
    text = str(refused.value)
    assert "402 macs (0.0998 of the network) cannot be reached: the smallest plan has 1,004 (0.2493)" in text
    assert "l2.weight (40 elements): dim 0: it is an output at net.py:7" in text
    reachable = plan(graph, scores_of(graph, 0), Budget(macs=0.2493))
    assert graph.plan_cost(reachable).macs == 1004


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": ["l0"]}, "Without your keep the smallest"),
        ({"keep": ["l0"], "round_to": 2}, "Without your keep and round_to the smallest"),
        ({"only": ["l0"]}, "Without your only the smallest"),
        ({"limit": {"l0": 0.1}, "floor": 3}, "Without your limit and floor the smallest"),
    ],
)
def test_a_refusal_names_only_the_options_that_were_given(options, words):
    graph = Chain([50, 50], [1, 1])
    with pytest.raises(BudgetError, match=words):
        plan(graph, scores_of(graph, 0), Budget(macs=0.02), **options)
    with pytest.raises(BudgetError) as refused:
        plan(graph, scores_of(graph, 0), Budget(macs=1))
    assert "Without" not in str(refused.value)


def test_scores_of_held_groups_may_be_missing():
    graph = Chain([50, 50], [1, 1])
    scores = scores_of(graph, 0)
    del scores["l0.weight:0"]
    assert plan(graph, scores, Budget(params=0.7), keep=["l0.weight:0"]).keep.keys() == {"l1.weight:0"}
    with pytest.raises(PlanError, match=r"no score for group 'l0.weight:0'; score every group"):
        plan(graph, scores, Budget(params=0.7))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scores": {"l0.weight:0": [1.0, float("nan")]}}, PlanError, r"hold NaN \(unit 1 first\)"),
        ({"scores": {"l0.weight:0": [1.0]}}, PlanError, r"shape \(1,\); it has 2 units"),
        ({"scores": {"l0.weight": [1.0, 2.0]}}, UnknownNameError, "Did you mean 'l0.weight:0'"),
        ({"scores": {"l0.weight:0": torch.ones(2, device="meta")}}, PlanError, "meta device"),
        ({"strategy": "globl"}, UnknownNameError, "Did you mean 'global'"),
        ({"keep": ["l7*"]}, UnknownNameError, r"unknown pattern 'l7\*'"),
        ({"only": ["conv"]}, UnknownNameError, "unknown pattern 'conv'"),
        ({"limit": {"l9": 0.5}}, UnknownNameError, "unknown pattern 'l9'"),
        ({"limit": {"l0": 1.5}}, PlanError, "not a ratio"),
        ({"keep": "l0"}, PlanError, r"keep=\['l0'\]"),
        ({"round_to": 0}, PlanError, "round_to=0"),
        ({"floor": 1.5}, PlanError, "floor=1.5"),
        ({"floor": -1}, PlanError, "floor=-1"),
    ],
)
def test_mistakes_are_named(change, error, message):
    graph = Chain([2], [1])
    options = {"scores": scores_of(graph, 0), "budget": Budget(macs=0.5), **change}
    with pytest.raises(error, match=message):
        plan(graph, **options)
