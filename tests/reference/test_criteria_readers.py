"""Criteria of activations and the weights that read them, against the readers run with one unit at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from espalier import criteria
from espalier.criteria.signals.output_grams import output_grams
from espalier.criteria.signals.reader_calls import ReaderCall, call_sums

from .criteria_networks import batches, network

READERS = {
    "mlp": {"one.weight:0": ["two"], "two.weight:0": ["head"]},
    "small": {"stem.weight:0": ["wide", "mix", "head"], "wide.weight:0": ["narrow"]},
    "residual": {"one.weight:0": ["two"], "hidden.weight:0": ["head"]},
    "video": {"one.weight:0": ["two"], "two.weight:0": ["head"]},
    "attention": {"v.weight:0.1": ["out"]},
    "grouped": {"one.weight:0.1": ["grouped"], "grouped.weight:0.1": ["up"], "up.weight:1": ["hidden"]},
}
DATA = (3, 2)


def parts(kind: str) -> dict[str, list[tuple[nn.Module, Tensor, list[list[int]], int]]]:
    """Return each reader of each group: the module, what it saw, each unit's channels there, their dimension."""
    model, graph = network(kind)
    found: dict = {}
    for group, readers in READERS[kind].items():
        assert group in graph.groups, list(graph.groups)
        for reader in readers:
            module, inputs = model.get_submodule(reader), []
            handle = module.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0].detach()))
            for x, _ in batches(kind, DATA):
                model(x)
            handle.remove()
            found.setdefault(group, []).append((module, torch.cat(inputs)))
    calls: dict[tuple[str, int], ReaderCall] = {}

    def take(call: ReaderCall) -> Tensor:
        calls[call.group, call.number] = call
        return torch.zeros(1)

    call_sums(model, graph, batches(kind, DATA), take)
    return {
        group: [
            (module, x, calls[group, number].positions.tolist(), calls[group, number].dim)
            for number, (module, x) in enumerate(readers)
        ]
        for group, readers in found.items()
    }


def signals(module: nn.Module, x: Tensor, channels: list[list[int]], dim: int) -> list[Tensor]:
    """Return what the reader computes of each unit alone, without bias."""
    nothing = module(torch.zeros_like(x))
    found = []
    for own in channels:
        alone = torch.zeros_like(x)
        alone.movedim(dim, 0)[own] = x.movedim(dim, 0)[own]
        found.append((module(alone) - nothing).detach())
    return found


def grams(kind: str) -> dict[str, np.ndarray]:
    found = {}
    for group, readers in parts(kind).items():
        total: np.ndarray | float = 0.0
        for module, x, channels, dim in readers:
            rows = torch.stack([one.flatten() for one in signals(module, x, channels, dim)])
            total = total + (rows @ rows.T).numpy() / len(x)
        found[group] = np.asarray(total)
    return found


def scored(kind: str, criterion, **options) -> dict[str, np.ndarray]:
    model, graph = network(kind)
    scores = criterion(model, graph, batches=batches(kind, DATA), **options)
    return {name: scores[name].numpy() for name in READERS[kind]}


@pytest.mark.parametrize("kind", READERS)
def test_output_grams_are_inner_products_of_what_units_send(kind) -> None:
    model, graph = network(kind)
    found = output_grams(model, graph, batches(kind, DATA), positions=1000)
    for name, expected in grams(kind).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-10, err_msg=name)


def test_output_grams_of_some_positions_are_scaled_to_all(monkeypatch) -> None:
    model, graph = network("small")
    data = [(torch.ones(3, 2, 4, 4, dtype=torch.float64), torch.zeros(3))]
    model.depthwise.weight.data.zero_()  # every position of what `narrow` reads is alike
    few, all_ = (output_grams(model, graph, data, positions=n)["wide.weight:0"] for n in (5, 1000))
    torch.testing.assert_close(few, all_)
    monkeypatch.setattr("espalier.criteria.signals.output_grams._BLOCK_ELEMENTS", 7)
    torch.testing.assert_close(output_grams(model, graph, data, positions=1000)["wide.weight:0"], all_)


@pytest.mark.parametrize("kind", READERS)
def test_hagiwara(kind) -> None:
    goodness = scored(kind, criteria.hagiwara_goodness, positions=1000)
    energy = scored(kind, criteria.hagiwara_energy, positions=1000)
    for name, gram in grams(kind).items():
        np.testing.assert_allclose(goodness[name], gram.diagonal(), rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(energy[name], gram.sum(1), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("kind", READERS)
def test_thinet_removes_what_hurts_least(kind) -> None:
    scores = scored(kind, criteria.thinet, positions=1000)
    for name, readers in parts(kind).items():
        sent = [signals(*reader) for reader in readers]
        gone: list[int] = []
        while len(gone) < len(sent[0]):
            errors = {
                unit: sum(float(sum(own[v] for v in [*gone, unit]).square().sum()) for own in sent)  # type: ignore[union-attr]
                for unit in range(len(sent[0]))
                if unit not in gone
            }
            gone.append(min(errors, key=errors.__getitem__))
        assert np.argsort(scores[name]).tolist() == gone
        assert sorted(scores[name] * len(gone)) == pytest.approx(range(1, len(gone) + 1))


@pytest.mark.parametrize("kind", ["mlp", "small", "video", "grouped"])
def test_channel_pruning_is_when_each_unit_enters_the_lasso(kind) -> None:
    """Brute force: coordinate descent at penalties just above and below each unit's score."""
    scores = scored(kind, criteria.channel_pruning, positions=1000)
    for name, gram in grams(kind).items():
        largest = np.abs(gram.sum(1)).max()  # above it no unit is used
        assert scores[name].max() == pytest.approx(1)
        for unit, score in enumerate(scores[name]):
            above, below = (descend(gram, largest * score * factor)[unit] for factor in (1.02, 0.98))
            assert abs(above) < 1e-9 or score < 1e-4, (name, unit)
            assert abs(below) > 0 or score < 1e-4, (name, unit)


def descend(gram: np.ndarray, penalty: float) -> np.ndarray:
    beta = np.zeros(len(gram))
    for _ in range(3000):
        for unit in range(len(gram)):
            slope = gram[unit].sum() - gram[unit] @ beta + gram[unit, unit] * beta[unit]
            beta[unit] = np.sign(slope) * max(abs(slope) - penalty, 0) / gram[unit, unit]
    return beta


@pytest.mark.parametrize("kind", ["mlp", "small", "video", "grouped", "attention"])
def test_obc_is_the_error_after_the_best_refit(kind) -> None:
    """Brute force: least squares of the reader's outputs on the features of all other units."""
    scores = scored(kind, criteria.obc, positions=1000, damping=1e-2)
    for name, readers in parts(kind).items():
        for unit in range(len(readers[0][2])):
            error = sum(refitted(module, x, channels, dim, unit) for module, x, channels, dim in readers)
            assert scores[name][unit] == pytest.approx(error, rel=1e-5)


def refitted(module: nn.Module, x: Tensor, channels: list[list[int]], dim: int, unit: int) -> float:
    """Return the least of  sum |W[u] x[u] - D x|^2 / samples + ridge |W - (W - D)|^2  over D that takes all of u."""
    rows, owners = features(module, x, channels, dim)
    error = 0.0
    for own_rows, own_units, weight in zip(rows, owners, matrices(module), strict=True):
        second = own_rows.T @ own_rows / len(x)
        damped = second + 1e-2 * second.trace() / len(second) * np.eye(len(second))
        gone = [f for f, one in enumerate(own_units) if one == unit]
        rest = [f for f, one in enumerate(own_units) if one != unit]
        if not gone:
            continue
        change = np.zeros_like(weight)
        change[:, gone] = -weight[:, gone]
        change[:, rest] = -np.linalg.solve(damped[np.ix_(rest, rest)], damped[np.ix_(rest, gone)] @ change[:, gone].T).T
        error += float(np.einsum("of,fg,og->", change, damped, change))
    return error


def matrices(module) -> list[np.ndarray]:
    weight = module.weight.detach().numpy()
    if isinstance(module, nn.ConvTranspose2d):
        return [np.moveaxis(weight, 1, 0).reshape(weight.shape[1], -1)]
    groups = getattr(module, "groups", 1)
    return [part.reshape(len(part), -1) for part in np.split(weight, groups)]


def features(module, x: Tensor, channels: list[list[int]], dim: int) -> tuple[list[np.ndarray], list[list[int]]]:
    """Return, for each group of the convolution, its features at every output position, found by probing."""
    unit_of = {c: unit for unit, own in enumerate(channels) for c in own}
    groups, rows, owners = getattr(module, "groups", 1), [], []
    for weight, part in zip(matrices(module), range(groups), strict=True):
        columns, own_units = [], []
        for feature in range(weight.shape[1]):
            with torch.no_grad():
                kept = module.weight.clone()
                module.weight.zero_()
                where = matrices_at(module, part, feature)
                module.weight[where] = 1
                columns.append((module(x) - module(0 * x)).movedim(dim, -1)[..., output_of(module, part)].flatten())
                module.weight.copy_(kept)
            taps = weight.shape[1] // (x.shape[dim] // groups)
            own_units.append(unit_of.get(part * (x.shape[dim] // groups) + feature // taps, -1))
        rows.append(torch.stack(columns, 1).numpy())
        owners.append(own_units)
    return rows, owners


def matrices_at(module, part: int, feature: int) -> tuple[int, ...]:
    shape = module.weight.shape
    if isinstance(module, nn.ConvTranspose2d):
        place = np.unravel_index(feature, (shape[0], *shape[2:]))
        return (int(place[0]), 0, *map(int, place[1:]))
    return (output_of(module, part), *map(int, np.unravel_index(feature, tuple(shape[1:]))))


def output_of(module, part: int) -> int:
    return 0 if isinstance(module, nn.ConvTranspose2d) else part * (len(module.weight) // getattr(module, "groups", 1))


@pytest.mark.parametrize("kind", READERS)
def test_wanda_and_n2ps(kind) -> None:
    wanda, n2ps = scored(kind, criteria.wanda), scored(kind, criteria.n2ps)
    for name, readers in parts(kind).items():
        expected = np.zeros((2, len(wanda[name])))
        for (module, x, channels, dim), (unit, own) in itertools.product(readers, enumerate(readers[0][2])):
            for number, channel in enumerate(own):
                place = channels[unit][number]
                weight = column(module, place, x.shape[dim])
                values = x.movedim(dim, 0)[place]
                expected[0, unit] += weight * float(values.square().sum() / len(x)) ** 0.5
                expected[1, unit] += weight * abs(float(values.mean()))
                del channel
        np.testing.assert_allclose(wanda[name], expected[0], rtol=1e-6)
        np.testing.assert_allclose(n2ps[name], expected[1], rtol=1e-6)


def column(module, channel: int, channels: int) -> float:
    """Return the sum of |W| over the weights that read a channel."""
    weight = module.weight.detach().abs()
    if isinstance(module, nn.ConvTranspose2d):
        return float(weight[channel].sum())
    groups = getattr(module, "groups", 1)
    part = channel // (channels // groups)
    return float(weight.chunk(groups)[part][:, channel % (channels // groups)].sum())


def test_cosine_redundancy() -> None:
    model, graph = network("small")
    scores = criteria.cosine_redundancy(model, graph)["stem.weight:0"].numpy()
    rows = np.concatenate(
        [layer.weight.detach().reshape(4, -1).numpy() for layer in (model.stem, model.narrow, model.mix)], 1
    )
    for unit in range(4):
        cosines = [
            rows[unit] @ rows[v] / np.linalg.norm(rows[unit]) / np.linalg.norm(rows[v]) for v in range(4) if v != unit
        ]
        assert scores[unit] == pytest.approx(1 - max(cosines), rel=1e-6)


def test_twins_are_worth_nothing_to_each_other() -> None:
    model, graph = network("mlp")
    with torch.no_grad():
        model.one.weight[2] = 3 * model.one.weight[4]
        model.one.weight[0] = 0
    scores = criteria.cosine_redundancy(model, graph)["one.weight:0"]
    assert scores[[0, 2, 4]].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    assert float(scores[[1, 3, 5]].min()) > 1e-3


def test_units_that_all_point_away_from_each_other_are_worth_more_than_orthogonal_ones() -> None:
    model, graph = network("mlp")
    with torch.no_grad():
        model.two.weight.copy_(torch.eye(5, 6) - torch.tensor([0.2] * 5 + [0.0]))
    assert criteria.cosine_redundancy(model, graph)["two.weight:0"].tolist() == pytest.approx([1.25] * 5, rel=1e-4)
