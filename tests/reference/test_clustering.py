"""Clusters and their rate against brute force, scikit-learn and the papers' own arithmetic."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import cluster
from torch import Tensor, nn

import espalier as es
from espalier.core import BudgetError, ModelError, UnknownNameError
from espalier.graph.masks import masks_of
from espalier.graph.sharing import sharing_of
from espalier.losses import rate
from espalier.selection.bits import Choice, allocate
from espalier.selection.clustering import Clusters, choose_sharing, compression_rate
from espalier.selection.lloyd import Start, lloyd
from espalier.selection.rounding import round_vectors_, rounded

KMeans: Any = cluster.KMeans  # its annotations are its defaults' types
LECTURE = np.array([0.5, 1.3, 4.3, -0.1, 0.1, -0.2, -1.2, 0.3, 1.0, 3.0, -0.4, 0.1, -0.5, -0.1, -3.4, -5.0])


def best_error(numbers: np.ndarray, clusters: int) -> float:
    """Return the least sum of squared distances: clusters of numbers on a line are ranges of them in order."""
    ordered = np.sort(numbers)
    least = math.inf
    for cuts in itertools.combinations(range(1, len(ordered)), min(clusters, len(ordered)) - 1):
        parts = np.split(ordered, cuts)
        least = min(least, sum(float(((part - part.mean()) ** 2).sum()) for part in parts))
    return least


def test_the_lectures_sixteen_weights_are_four_values() -> None:
    found = lloyd(LECTURE, 4, start="density")
    assert found.centroids == pytest.approx([-4.2, -0.2875, 0.775, 3.65])
    assert found.error == pytest.approx(best_error(LECTURE, 4)) == pytest.approx(4.02125)
    assert (found.centroids[found.symbols].round(4) == [0.775, 0.775, 3.65, -0.2875] + [-0.2875] * 3 + [0.775] * 2
            + [3.65] + [-0.2875] * 4 + [-4.2] * 2).all()  # fmt: skip
    assert compression_rate(16, 4) == pytest.approx(16 * 32 / (16 * 2 + 4 * 32)) == pytest.approx(3.2)


@pytest.mark.parametrize("start", ["linear", "density", "kmeans++"])
@pytest.mark.parametrize("clusters", [1, 2, 7, 32])
def test_lloyd_is_scikit_learns_from_the_same_beginning(start: Start, clusters: int) -> None:
    numbers = np.random.default_rng(clusters).standard_t(4, 3000)
    found = lloyd(numbers, clusters, start=start, generator=np.random.default_rng(5))
    theirs = KMeans(clusters, init=found.centroids[:, None], n_init=1, tol=0, max_iter=1).fit(numbers[:, None])
    assert theirs.inertia_ == pytest.approx(found.error, rel=1e-9)  # a fixed point: their step changes nothing
    if start == "linear":
        begin = np.linspace(numbers.min(), numbers.max(), clusters)[:, None]
        whole = KMeans(clusters, init=begin, n_init=1, tol=0, max_iter=1000).fit(numbers[:, None])
        if clusters < 32:
            assert found.error == pytest.approx(whole.inertia_, rel=1e-9)
        assert found.error <= whole.inertia_ * 1.15  # centroids that nobody was nearest to go elsewhere than theirs


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9), st.integers(1, 4))
def test_lloyd_is_a_fixed_point_no_better_than_the_best(numbers: list[float], clusters: int) -> None:
    given_ = np.array(numbers)
    for start in ("linear", "density", "kmeans++"):
        found = lloyd(given_, clusters, start=start)
        assert found.error >= best_error(given_, clusters) - 1e-6
        assert len(found.centroids) <= clusters and (np.diff(found.centroids) > 0).all()
        assert set(found.symbols.tolist()) == set(range(len(found.centroids)))
        own = np.abs(given_ - found.centroids[found.symbols])
        nearest = np.abs(given_[:, None] - found.centroids).min(1)
        assert (own <= nearest + 1e-9 * (1 + np.abs(given_))).all()
        if len(np.unique(given_)) <= clusters:
            assert found.error == pytest.approx(0.0, abs=1e-9)


def test_a_histogram_loses_next_to_nothing() -> None:
    numbers = np.random.default_rng(0).standard_normal(600_000).astype(np.float32)
    found = lloyd(numbers, 16)
    exact = KMeans(16, init=found.centroids[:, None], n_init=1, tol=0, max_iter=300).fit(numbers[::20, None])
    assert found.error <= 1.001 * float(
        ((numbers - exact.cluster_centers_[exact.predict(numbers[:, None]), 0]) ** 2).sum()
    )


def test_the_number_of_values_is_what_bits_say_beside_zero() -> None:
    torch.manual_seed(0)
    model = es.sparsify(nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10)), 0.6)
    small = es.cluster(model, 3, layers={"2": 1})
    for name, count in (("0.weight", 8), ("2.weight", 2)):
        kept = masks_of(model).kept[name]
        values = small.get_parameter(name)[kept].unique()
        assert len(values) == count and not small.get_parameter(name)[~kept].any()
        assert sharing_of(small).clusters(name) == count
    per = es.cluster(model, 1, per="channel")
    assert all(len(row[row != 0].unique()) <= 2 for row in per.get_parameter("0.weight"))
    assert len(per.get_parameter("0.weight").unique()) > 20


@pytest.mark.parametrize(("given_", "kind"), [({}, ModelError), ({"bits": 13}, ModelError)])
def test_what_cannot_be_clustered_is_refused(given_: dict, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        choose_sharing(nn.Linear(4, 4), Clusters(**given_))
    with pytest.raises(UnknownNameError, match="Did you mean"):
        choose_sharing(nn.Sequential(nn.Linear(4, 4)), Clusters(bits=2, layers={"0.weigth": 1}))


def brute_rate(weights: Tensor, values: Tensor, softness: float, fixed: Tensor) -> Tensor:
    """Return the rate by its definition, a weight and a symbol at a time."""
    unit = softness * sum(float(values[i + 1] - values[i]) for i in range(len(values) - 1)) / (len(values) - 1)
    shares = [fixed[s] * 1.0 for s in range(len(values))]
    for weight in weights:
        near = [torch.exp(-((weight - value) ** 2) / (2 * unit**2)) for value in values]
        shares = [share + one / sum(near) for share, one in zip(shares, near, strict=True)]
    total = len(weights) + float(fixed.sum())
    return -sum(share / total * torch.log2(share / total) for share in shares)  # type: ignore[return-value]


@pytest.mark.parametrize("softness", [0.2, 0.5, 2.0])
def test_the_rate_and_its_gradient_are_the_definition(softness: float) -> None:
    torch.manual_seed(1)
    weights = torch.randn(30, dtype=torch.float64, requires_grad=True)
    values = torch.tensor([-1.5, -0.4, 0.0, 0.3, 1.1], dtype=torch.float64)
    fixed = torch.tensor([0.0, 0.0, 40.0, 0.0, 0.0], dtype=torch.float64)
    ours, theirs = rate(weights, values, softness, fixed), brute_rate(weights, values, softness, fixed)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    (mine,) = torch.autograd.grad(ours, weights)
    (brute,) = torch.autograd.grad(theirs, weights)
    assert torch.allclose(mine, brute, rtol=1e-6, atol=1e-12) and brute.abs().max() > 1e-4


def test_the_rate_of_hard_weights_is_their_entropy_and_pulls_to_the_frequent() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0])
    weights = torch.tensor([-1.0] * 1 + [0.0] * 6 + [1.0] * 2)
    shares = torch.tensor([1.0, 6.0, 2.0]) / 9
    assert rate(weights, values, 0.02).item() == pytest.approx(-float((shares * shares.log2()).sum()), rel=1e-5)
    between = torch.tensor([0.5] + [0.0] * 6 + [1.0] * 2, requires_grad=True)
    rate(between, values, 0.3).backward()
    assert between.grad is not None and between.grad[0] > 0  # descent takes it down, to the more frequent 0
    with pytest.raises(ModelError):
        rate(weights, values, 0.0)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_bits_under_a_budget_are_the_best_choice(data: st.DataObject) -> None:
    numbers = st.integers(0, 20)
    choices = {
        name: [
            Choice(bits=b, cost=data.draw(numbers), loss=data.draw(numbers) / 8)
            for b in range(data.draw(st.integers(1, 3)))
        ]
        for name in "abc"
    }
    limit = data.draw(st.integers(0, 60))
    every = list(itertools.product(*choices.values()))
    fitting = [one for one in every if sum(choice.cost for choice in one) <= limit]
    if not fitting:
        with pytest.raises(BudgetError):
            allocate(choices, limit)
        return
    found = allocate(choices, limit)
    assert sum(one.cost for one in found.values()) <= limit
    least = min(sum(choice.loss for choice in one) for one in fitting)
    assert sum(one.loss for one in found.values()) == pytest.approx(least, abs=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), st.integers(1, 23))
def test_rounding_is_to_the_nearest_float_with_so_many_bits(value: float, bits: int) -> None:
    out = float(rounded(torch.tensor([value]), bits))
    if math.isinf(out):
        return  # the largest floats round up
    assert abs(out - value) <= 2.0 ** -(bits + 1) * abs(value) * (1 + 1e-12)
    mantissa = np.array([out], np.float32).view(np.uint32)[0] & ((1 << (23 - bits)) - 1)
    assert mantissa == 0


def test_vectors_are_rounded_and_weights_are_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Conv2d(20, 4, 3))
    model(torch.randn(8, 3, 9, 9))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    round_vectors_(model, 4)
    after = model.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"]) and torch.equal(after["2.bias"], before["2.bias"])
    for name in ("0.bias", "1.running_mean", "1.running_var"):
        assert not torch.equal(after[name], before[name])
        assert torch.allclose(after[name], before[name], rtol=1 / 32)
    assert torch.equal(after["1.num_batches_tracked"], before["1.num_batches_tracked"])
