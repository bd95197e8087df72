"""Group Fisher on the families of its paper: every group is watched, the budget is met, and the cut proves itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import espalier as es
from espalier.methods.pruning.group_fisher import GroupFisher
from espalier.zoo.sources.torchvision_operators import declare

from ..reference.method_context import context, goal

NETWORKS = {"resnet18": 32, "resnext50_32x4d": 32, "regnetx_002": 32, "mobilenetv2_100": 64}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_family_is_pruned_to_its_budget(name: str) -> None:
    declare()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5)
    x, y = torch.randn(4, 3, NETWORKS[name], NETWORKS[name]), torch.randint(5, (4,))
    graph = es.trace(model, x)
    method = GroupFisher(every_steps=1, cut_every=10**6)
    notes: list[str] = []
    aim = goal(int(0.6 * graph.cost().macs))
    state = method.start(model, graph, context(aim, steps=2, note=notes.append))
    plan = None
    for _ in range(2):
        outputs = model.train()(x)
        method.penalty(state, (x, y), outputs)
        functional.cross_entropy(outputs, y).backward()
        plan = plan or method.step(state)
    assert set(state.sums) == set(graph.groups) and not notes
    assert plan is not None and graph.plan_cost(plan).macs <= 0.6 * graph.cost().macs
    small = es.cut(model.eval(), graph, plan, prove=True)
    assert small.espalier_proof != "not proved"  # type: ignore[comparison-overlap]
    counts = {**graph.counts(plan)}
    last = next(iter(plan.keep))
    assert graph.cost({**counts, last: counts[last] + 1}).macs > graph.plan_cost(plan).macs
