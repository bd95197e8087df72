"""Every criterion on every kind of network: finite, repeatable, and the model is as it was."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import espalier as es
from espalier import criteria
from espalier.core import ModelError
from espalier.graph import Graph

from ..reference.criteria_networks import NETWORKS, batches, loss, network

# scores that one batch of all samples gives as well: sums over samples of what each gives alone
ADDITIVE = {
    "snip",
    "taylor_gate",
    "fisher",
    "group_fisher",
    "obs",
    "skeletonization",
    "sensitivity_variance",
    "activation_mean",
    "activation_variance",
    "nonzero_count",
    "hrank",
    "svd_contribution_data",
    "neural_complexity",
    "mutual_information",
    "lda",
    "wanda",
    "n2ps",
    "hagiwara_goodness",
    "hagiwara_energy",
    "thinet",
    "channel_pruning",
    "obc",
}


def score(criterion: str, model: nn.Module, graph: Graph, data: list, **options: Any) -> dict[str, Tensor]:
    given = {"batches": iter(data), "loss": loss, **options} if criterion in criteria.DATA_DRIVEN else {}
    return criteria.named(criterion)(model, graph, **given)


@pytest.mark.parametrize("criterion", sorted(criteria.CRITERIA))
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_criterion_on_every_network(kind: str, criterion: str) -> None:
    model, graph = network(kind)
    if criterion == "bn_scale" and not any("norm" in name for name, _ in model.named_parameters()):
        pytest.skip("no group has a scale, and it says so")
    model.train()
    next(model.parameters()).grad = kept = torch.ones_like(next(model.parameters()))
    before = copy.deepcopy(model.state_dict())
    required = [p.requires_grad for p in model.parameters()]
    generator = torch.get_rng_state()
    scores = score(criterion, model, graph, batches(kind))
    assert {name: tuple(one.shape) for name, one in scores.items()} == {n: (s,) for n, s in graph.sizes.items()}
    assert all(bool(one.isfinite().all()) and not one.requires_grad for one in scores.values())
    again = score(criterion, model, graph, batches(kind))
    assert all(torch.equal(one, again[name]) for name, one in scores.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert next(model.parameters()).grad is kept and torch.equal(kept, torch.ones_like(kept))
    assert all(p.grad is None for p in list(model.parameters())[1:])
    assert [p.requires_grad for p in model.parameters()] == required
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("criterion", sorted(criteria.CRITERIA))
def test_every_criterion_tells_units_apart(criterion: str) -> None:
    """Where all units of a group are worth the same, their weights decide."""
    for kind in ("residual",) if criterion == "bn_scale" else ("residual", "mlp", "attention"):
        model, graph = network(kind)
        for name, one in score(criterion, model, graph, batches(kind, (12, 12))).items():
            assert len(set(one.tolist())) > 1 or graph.sizes[name] < 3, (kind, name)


@pytest.mark.parametrize("criterion", sorted(ADDITIVE))
@pytest.mark.parametrize("kind", ["small", "grouped", "attention", "video"])
def test_splitting_batches_changes_nothing(kind: str, criterion: str) -> None:
    model, graph = network(kind)
    whole, parts = (score(criterion, model, graph, batches(kind, sizes)) for sizes in ((6,), (1, 3, 2)))
    for name, one in whole.items():
        if group_is_tapped(kind, name):
            torch.testing.assert_close(one, parts[name], rtol=1e-6, atol=1e-12, msg=f"{criterion} {name}")


def group_is_tapped(kind: str, name: str) -> bool:
    """Whether samples can be told apart: not where activations meet activations."""
    return kind != "attention" or not name.startswith(("q.", "k."))


@pytest.mark.parametrize("criterion", sorted(criteria.DATA_DRIVEN))
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "batches is empty"),
        ([(torch.randn(2, 7).double(), torch.zeros(2, dtype=torch.long))], "batch 1: the model does not run on it"),
        ([torch.randn(2, 4).double()], "batch 1 is no pair"),
        ([(torch.full((2, 4), torch.nan).double(), torch.zeros(2, dtype=torch.long))], "batch 1: its inputs hold NaN"),
        ([(torch.full((2, 4), torch.inf).double(), torch.zeros(2, dtype=torch.long))], "not finite|the loss is nan"),
    ],
    ids=["none", "shape", "pair", "nan", "inf"],
)
def test_a_bad_batch_is_one_clear_error(criterion: str, data: list, message: str) -> None:
    if "finite" in message:
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).double()  # no tanh makes a number of it
    else:
        model, _ = network("mlp")
    graph = es.trace(model.eval(), torch.zeros(2, 4).double())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ModelError, match=message):
        score(criterion, model, graph, data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("criterion", sorted(set(criteria.CRITERIA) - {"random"}))
def test_weights_that_are_not_finite_are_an_error(criterion: str) -> None:
    model, graph = network("small")
    nn.init.constant_(model.narrow.weight, torch.nan)  # type: ignore[arg-type]
    with pytest.raises(ModelError):
        score(criterion, model, graph, batches("small"))
