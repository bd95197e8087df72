"""Law: criteria commute with permutation of units. Renaming a group's units renames its scores."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from espalier import criteria
from espalier.core import Group, Role, Slot

from ..reference import criteria_networks

UNITS = {"a": 5, "b": 6}


def network(seed: int) -> tuple[nn.Sequential, SimpleNamespace]:
    """Return linear -> batch norm -> linear -> linear; a unit of the last group is three columns wide."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 18), nn.Linear(18, 3)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    a, b = np.arange(5)[:, None], np.arange(18).reshape(3, 6).T
    groups = {
        "a": Group(
            "a", 5, _slots(("0.weight", 0), ("0.bias", 0), ("1.weight", 0), ("1.bias", 0), ("2.weight", 1), at=a)
        ),
        "b": Group("b", 6, _slots(("2.weight", 0), ("2.bias", 0), ("3.weight", 1), at=b)),
    }
    return model, SimpleNamespace(groups=groups, shapes={n: tuple(t.shape) for n, t in model.state_dict().items()})


def _slots(*places: tuple[str, int], at: np.ndarray) -> tuple[Slot, ...]:
    roles = {"1.weight": Role.SCALE}
    return tuple(Slot(name, dim, at, roles.get(name, Role.READER if dim else Role.PRODUCER)) for name, dim in places)


def permuted(model: nn.Module, group: Group, order: list[int]) -> nn.Module:
    """Return a copy whose unit i is unit ``order[i]`` of ``model``."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for slot in group.slots:
            new, old = (m.get_parameter(slot.tensor).movedim(slot.dim, 0) for m in (twin, model))
            new[slot.positions.ravel()] = old[slot.positions[order].ravel()]
    return twin


def taylor(model: nn.Module, graph: SimpleNamespace, form: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(7, 4, generator=generator, dtype=torch.float64), torch.randint(3, (7,), generator=generator)
    return criteria.taylor(model, graph, batches=[batch], loss=nn.functional.cross_entropy, form=form)


CASES = {
    **{f"magnitude-{n}": lambda m, g, n=n: criteria.magnitude(m, g, normalise=n) for n in ("mean", "standardise")},
    "bn_scale": criteria.bn_scale,
    "geometric_median": criteria.geometric_median,
    "lamp": criteria.lamp,
    "reverse": criteria.reverse(criteria.lamp),
    **{f"taylor-{form}": lambda m, g, form=form: taylor(m, g, form) for form in ("unit", "element", "square")},
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=(settings.default or settings()).max_examples // 5)  # nine cases share one search
@given(seed=st.integers(0, 99), data=st.data())
def test_scores_follow_their_units(case, seed, data):
    model, graph = network(seed)
    name = data.draw(st.sampled_from(sorted(UNITS)))
    order = data.draw(st.permutations(range(UNITS[name])))
    before = CASES[case](model, graph)
    after = CASES[case](permuted(model, graph.groups[name], order), graph)
    before[name] = before[name][list(order)]
    for group in UNITS:
        torch.testing.assert_close(after[group], before[group], rtol=1e-8, atol=1e-10)


def shuffled(model: nn.Module, group: Group, order: list[int]) -> nn.Module:
    """Return a copy whose unit i is unit ``order[i]`` of ``model``, buffers included."""
    twin = copy.deepcopy(model)
    for slot in group.slots:
        new = twin.state_dict()[slot.tensor].movedim(slot.dim, 0)
        old = new.clone()  # a square weight has the group on both its dimensions
        new[slot.positions.ravel()] = old[slot.positions[order].ravel()]
    return twin


# options under which a criterion has to do with units alone, and not with where they sit
OPTIONS = {"obd": {"probes": None}}


@pytest.mark.parametrize("criterion", sorted(set(criteria.CRITERIA) - {"random"}))  # it does not look at the weights
@pytest.mark.parametrize("kind", ["small", "mlp", "video"])
def test_scores_follow_their_units_in_a_traced_network(kind: str, criterion: str) -> None:
    model, graph = criteria_networks.network(kind)
    if criterion == "bn_scale" and kind == "mlp":
        pytest.skip("no group has a scale, and it says so")
    if criterion == "obd" and kind == "video":
        pytest.skip("every weight in turn would take minutes")
    options = dict(OPTIONS.get(criterion, {}))
    if criterion in criteria.DATA_DRIVEN:
        options |= {"batches": criteria_networks.batches(kind, (4, 3)), "loss": criteria_networks.loss}
    before = criteria.named(criterion)(model, graph, **options)
    for name, group in graph.groups.items():
        order = torch.randperm(group.size, generator=torch.Generator().manual_seed(3)).tolist()
        after = criteria.named(criterion)(shuffled(model, group, order), graph, **options)
        for other in graph.groups:
            expected = before[other][order] if other == name else before[other]
            torch.testing.assert_close(after[other], expected, rtol=1e-6, atol=1e-9, msg=f"{name}, {other}")
