"""Criteria of activations against what plain loops make of activations that hooks recorded."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier import criteria
from espalier.core import ModelError
from espalier.criteria.signals.spectra import contributions

from .criteria_networks import batches, loss, network

# {network: {group: (its readers, and how many columns of theirs a unit has)}}
READERS = {
    "mlp": {"one.weight:0": (["two"], 1), "two.weight:0": (["head"], 1)},
    "small": {"stem.weight:0": (["wide", "mix", "head"], 1), "wide.weight:0": (["narrow"], 1)},
    "video": {"one.weight:0": (["two"], 1), "two.weight:0": (["head"], 1)},
    "grouped": {"up.weight:1": (["hidden"], 4), "hidden.weight:0": (["head"], 1)},
}
DATA = (4, 3)


def seen(kind: str) -> dict[str, list[Tensor]]:
    """Return what each reader of each group saw, (samples, units, positions), by hooks on modules."""
    model, graph = network(kind)
    found: dict[str, list[Tensor]] = {}
    for group, (readers, columns) in READERS[kind].items():
        for reader in readers:
            parts: list[Tensor] = []
            handle = model.get_submodule(reader).register_forward_pre_hook(
                lambda _, args, parts=parts: parts.append(args[0].detach())
            )
            for x, _ in batches(kind, DATA):
                model(x)
            handle.remove()
            whole = torch.cat(parts)
            found.setdefault(group, []).append(whole.reshape(len(whole), graph.sizes[group], -1))
            assert columns == 1 or found[group][-1].shape[2] == columns
    return found


def scored(kind: str, criterion, **options) -> dict[str, np.ndarray]:
    model, graph = network(kind)
    scores = criterion(model, graph, batches=batches(kind, DATA), **options)
    return {name: scores[name].numpy() for name in READERS[kind]}


def check(kind: str, criterion, of, **options) -> None:
    """``of(values of a unit at one reader: (samples, positions))`` averaged over readers."""
    scores = scored(kind, criterion, **options)
    for name, readers in seen(kind).items():
        expected = [np.mean([of(x[:, unit]) for x in readers]) for unit in range(readers[0].shape[1])]
        np.testing.assert_allclose(scores[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", READERS)
def test_activation_mean(kind) -> None:
    check(kind, criteria.activation_mean, lambda x: sum(abs(v) for v in x.flatten().tolist()) / x.numel())


@pytest.mark.parametrize("kind", READERS)
def test_activation_variance(kind) -> None:
    check(kind, criteria.activation_variance, lambda x: np.var(x.numpy()))


@pytest.mark.parametrize("kind", ["small", "grouped", "video"])
def test_nonzero_count_is_one_less_apoz(kind) -> None:
    def apoz(x: Tensor) -> float:
        return sum(v == 0 for v in x.flatten().tolist()) / x.numel()

    check(kind, criteria.nonzero_count, lambda x: 1 - apoz(x))
    assert any(0 < apoz(x) < 1 for readers in seen(kind).values() for x in readers)


def test_nonzero_count_has_a_threshold() -> None:
    check("mlp", criteria.nonzero_count, lambda x: float((x.abs() > 0.4).double().mean()), threshold=0.4)


def test_a_small_variance_beside_a_large_mean_is_not_lost() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, 1e4)
    x = torch.randn(64, 3)
    import espalier as es

    graph = es.trace(model.eval(), x[:2])
    scores = criteria.activation_variance(model, graph, batches=[(x, None)])["0.weight:0"]
    expected = model[0](x).double().var(0, correction=0)
    torch.testing.assert_close(scores, expected, rtol=1e-3, atol=0)


# ---- ranks and entropies ---------------------------------------------------------------------------------------------


def test_hrank_of_images_and_hidden_units() -> None:
    torch.manual_seed(0)
    kind = "small"

    def rank(x: Tensor) -> float:
        maps = x.reshape(len(x), 4, 4) if x.shape[1] == 16 else x[:, :, None]
        return float(np.mean([np.linalg.matrix_rank(one.numpy()) for one in maps]))

    check(kind, criteria.hrank, rank)
    check(kind, criteria.hrank, lambda x: rank(torch.cat([x[:2], x[4:6]])), samples=2)


def test_hrank_of_video_is_the_mean_over_unfoldings() -> None:
    def rank(x: Tensor) -> float:
        if x.shape[1] == 1:
            return float((x != 0).double().mean())
        clips = x.reshape(len(x), 2, 5, 5).numpy()  # pooled over two frames, then read
        return float(
            np.mean(
                [
                    np.linalg.matrix_rank(np.moveaxis(one, mode, 0).reshape(one.shape[mode], -1))
                    for one in clips
                    for mode in range(3)
                ]
            )
        )

    check("video", criteria.hrank, rank)


def entropy_of(matrix: np.ndarray) -> float:
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    q = [s / squares.sum() for s in squares if s > 1e-24 * squares.sum()]
    return -sum(v * math.log(v) for v in q) / math.log(len(squares)) if len(squares) > 1 else 0.0


@pytest.mark.parametrize("kind", ["mlp", "small", "video"])
def test_svd_contribution_data(kind) -> None:
    scores = scored(kind, criteria.svd_contribution_data)
    for name, readers in seen(kind).items():
        a = np.concatenate([x.movedim(1, 2).reshape(-1, x.shape[1]).numpy() for x in readers])
        expected = [entropy_of(a) - entropy_of(np.delete(a, unit, 1)) for unit in range(a.shape[1])]
        np.testing.assert_allclose(scores[name], expected, rtol=1e-5, atol=1e-9)


def test_svd_contribution_of_kernels_in_time_and_space() -> None:
    model, graph = network("video")
    weight = model.one.weight.detach().numpy()  # (6, 2, 3, 3, 3)

    def unfolded(w: np.ndarray, mode: int) -> np.ndarray:
        return np.moveaxis(w, mode, 0).reshape(w.shape[mode], -1)

    expected = [
        np.mean(
            [
                entropy_of(unfolded(weight, mode)) - entropy_of(unfolded(np.delete(weight, unit, 0), mode))
                for mode in (0, 2, 3, 4)
            ]
        )
        for unit in range(6)
    ]
    np.testing.assert_allclose(criteria.svd_contribution(model, graph)["one.weight:0"], expected, rtol=1e-5, atol=1e-9)


def test_svd_entropy_of_kernels() -> None:
    model, graph = network("video")
    scores = criteria.svd_entropy(model, graph)
    for name, layer, modes in (("one.weight:0", model.one, 4), ("two.weight:0", model.two, 4)):
        for unit, kernel in enumerate(layer.weight.detach().squeeze(2).numpy()):
            dims = range(kernel.ndim)
            expected = np.mean(
                [entropy_of(np.moveaxis(kernel, mode, 0).reshape(kernel.shape[mode], -1)) for mode in dims]
            )
            assert modes >= len(dims)
            assert float(scores[name][unit]) == pytest.approx(expected, rel=1e-6)


def test_svd_entropy_has_its_ends() -> None:
    model, graph = network("small")
    with torch.no_grad():
        model.stem.weight[0] = torch.ones(2, 3, 3)  # one direction
        model.narrow.weight.zero_()
    model.stem.weight.requires_grad_(True)
    assert float(criteria.svd_entropy(model, graph)["stem.weight:0"][0]) == pytest.approx(0, abs=1e-9)
    spread = contributions(torch.eye(5, dtype=torch.float64), 7)  # all alike, with and without any one
    torch.testing.assert_close(spread, torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("case", ["wide", "tall", "twins", "diagonal"])
def test_contributions_of_many_rows_are_nearly_exact(case, monkeypatch) -> None:
    torch.manual_seed(0)
    rows = torch.randn(60, 20 if case == "tall" else 90).double() * torch.rand(60, 1).double()
    if case == "twins":
        rows[5], rows[7] = rows[6], 0
    if case == "diagonal":
        rows = torch.eye(60, 90).double() * torch.arange(1, 61)[:, None]
    exact = contributions(rows @ rows.T, rows.shape[1])
    monkeypatch.setattr("espalier.criteria.signals.spectra._MOST_EXACT", 8)
    torch.testing.assert_close(contributions(rows @ rows.T, rows.shape[1]), exact, rtol=1e-3, atol=1e-6)


def test_vectors_have_no_svd_entropy_and_take_the_fallback() -> None:
    model, graph = network("mlp")
    scores = criteria.svd_entropy(model, graph)["one.weight:0"]
    lengths = criteria.magnitude(model, graph, normalise="none")["one.weight:0"]
    assert scores.argsort().tolist() == lengths.argsort().tolist()


# ---- information -----------------------------------------------------------------------------------------------------


def test_mutual_information() -> None:
    model, graph = network("mlp")
    data = batches("mlp", (20, 21))
    scores = criteria.mutual_information(model, graph, batches=data, bins=4)["one.weight:0"]
    x, classes = (torch.cat(parts) for parts in zip(*data, strict=True))
    hidden = torch.tanh(model.one(x)).detach().numpy()
    for unit in range(6):
        edges = [sorted(hidden[:, unit])[41 * b // 4] for b in (1, 2, 3)]
        which = [sum(v >= e for e in edges) for v in hidden[:, unit]]
        information = 0.0
        for b, c in itertools.product(range(4), range(3)):
            p = np.mean([w == b and k == c for w, k in zip(which, classes, strict=True)])
            apart = np.mean([w == b for w in which]) * np.mean([k == c for k in classes.tolist()])
            information += p * math.log(p / apart) if p else 0.0
        assert float(scores[unit]) == pytest.approx(information, rel=1e-6)


def test_a_unit_that_is_the_class_has_all_the_information() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)).double()
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([0.0, 1.0, 2.0])
        model[0].weight[1] = 0
    import espalier as es

    classes = torch.arange(30) % 3
    graph = es.trace(model.eval(), torch.zeros(2, 3).double())
    x = functional.one_hot(classes, 3).double()
    scores = criteria.mutual_information(model, graph, batches=[(x, classes)], bins=6)["0.weight:0"]
    assert float(scores[0]) == pytest.approx(math.log(3))
    assert float(scores[1]) == pytest.approx(0, abs=1e-9)


def complexity(covariance: np.ndarray) -> float:
    """H(X) - sum of H(x_i | the others) of a Gaussian."""
    whole = np.linalg.slogdet(covariance)[1] / 2
    others = [np.linalg.slogdet(np.delete(np.delete(covariance, i, 0), i, 1))[1] / 2 for i in range(len(covariance))]
    return whole - sum(whole - one for one in others)


@pytest.mark.parametrize("kind", ["mlp", "small"])
def test_neural_complexity(kind) -> None:
    scores = scored(kind, criteria.neural_complexity, ridge=0.05)
    for name, readers in seen(kind).items():
        rows = np.concatenate([x.movedim(1, 2).reshape(-1, x.shape[1]).numpy() for x in readers])
        covariance = np.cov(rows.T, bias=True)
        covariance += 0.05 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        for unit in range(len(covariance)):
            without = np.delete(np.delete(covariance, unit, 0), unit, 1)
            assert scores[name][unit] == pytest.approx(complexity(covariance) - complexity(without), rel=1e-5)


@pytest.mark.parametrize("kind", READERS)
def test_lda(kind) -> None:
    scores = scored(kind, criteria.lda, ridge=0.01)
    classes = torch.cat([y for _, y in batches(kind, DATA)]).numpy()
    for name, readers in seen(kind).items():
        a = readers[-1].amax(2).numpy()
        within, between = np.zeros(a.shape[1]), np.zeros(a.shape[1])
        for c in range(3):
            own = a[classes == c]
            within += ((own - own.mean(0)) ** 2).sum(0)
            between += len(own) * (own.mean(0) - a.mean(0)) ** 2
        np.testing.assert_allclose(scores[name], between / (within + 0.01 * within.mean()), rtol=1e-6)


@pytest.mark.parametrize("criterion", [criteria.lda, criteria.mutual_information])
def test_classes_may_be_soft_and_must_be_there(criterion) -> None:
    model, graph = network("mlp")
    hard = batches("mlp")
    soft = [(x, functional.one_hot(y, 3) * 0.8 + 0.1) for x, y in hard]
    one, other = (criterion(model, graph, batches=data) for data in (hard, soft))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for bad in (torch.zeros(3, 4, dtype=torch.long), torch.zeros(3), None, torch.full((3,), 7)):
        with pytest.raises(ModelError, match="batch 1: (this criterion needs one class|labels must be columns)"):
            criterion(model, graph, batches=[(hard[0][0], bad)])


def test_groups_without_a_tap_take_the_quantiles_of_the_others() -> None:
    model, graph = network("attention")
    scores = criteria.activation_mean(model, graph, batches=batches("attention"), loss=loss)
    hidden = "q.weight:0.1"  # q k^T: no weight reads it
    others = torch.cat([one for name, one in scores.items() if name != hidden])
    lengths = criteria.magnitude(model, graph, normalise="none")[hidden]
    assert set(scores[hidden].tolist()) <= set(others.tolist())
    assert scores[hidden][lengths.argmax()] == scores[hidden].max() > scores[hidden].min()
