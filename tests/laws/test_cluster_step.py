"""The steps that cluster and encode: few values in whatever follows, and the file that the record speaks of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import espalier as es
from espalier.core import EspalierError, UnknownNameError
from espalier.core.run import Run
from espalier.graph.recording.tensors import named_tensors
from espalier.graph.sharing import sharing_of
from espalier.methods import Quantizer
from espalier.methods.clustering.soft_to_hard import SoftToHard
from espalier.recipes import (
    Cluster,
    Encode,
    Finetune,
    Measure,
    Prune,
    Recipe,
    Save,
    Sparsify,
    Train,
    Training,
    parse,
    to_toml,
)
from espalier.report import render
from espalier.selection.clustering import Clusters
from espalier.tasks import Task, load_task

from .lessons import images, taught
from .stopped_runs import Killed, Network, Writes, assert_same, network, record
from .test_sharing import assert_shared

SHORT = Training(epochs=1, lr=0.005)
SPARSE = Sparsify(sparsity=0.6, finetune=Training(epochs=1, lr=0.05))
PLAIN = (
    SPARSE,
    Cluster(bits=3, layers={"head": 4}, vector_bits=5, finetune=SHORT),
    Encode(name="early.esp"),
    Prune(macs=0.6, criterion="magnitude", recover=("least_squares",), recover_batches=2),
    Finetune(epochs=1, lr=0.002, ema_decay=0.9),
    Encode(),
)
RATE = (
    SPARSE,
    Cluster(bits=3, rate=20.0, moving_ratio=0.6, finetune=Training(epochs=2, lr=0.02)),
    Sparsify(sparsity=0.8, schedule="gradual", every_steps=2, finetune=SHORT),
    Encode(),
)
BUDGET = (
    Cluster(size_ratio=0.3, sensitivity_batches=1, finetune=SHORT, per="channel", start="density"),
    Save(),
    Encode(),
)
RECIPES = {"plain": PLAIN, "rate": RATE, "budget": BUDGET}


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=256)


def recipe(steps: tuple[Any, ...]) -> Recipe:
    return Recipe(steps=(Train(epochs=1, lr=0.1), *steps, Measure(latency=False)), batch_size=256, checkpoint_seconds=0)


@pytest.fixture(scope="module", params=sorted(RECIPES))
def steps(request: pytest.FixtureRequest) -> tuple[Any, ...]:
    return RECIPES[request.param]


@pytest.fixture(scope="module")
def whole(
    steps: tuple[Any, ...], digits: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int, nn.Module]:
    folder = tmp_path_factory.mktemp("clustered") / "run"
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch, at=-1, error=Killed())
        small = es.compress(network(), digits, recipe(steps), folder=folder).model
    return folder, writes.count, small


def test_what_was_clustered_stays_so_to_the_end(steps: tuple[Any, ...], whole: tuple[Path, int, nn.Module]) -> None:
    folder, _, small = whole
    assert_shared(small)
    back = es.decode(folder / "model.esp", Network())
    for name, tensor in small.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)
    if steps is PLAIN:
        assert all(len(named_tensors(small)[name].unique()) <= 9 for name in ("a.weight", "b.weight"))
        assert any("clustered layers" in note for note in json.loads((folder / "run.json").read_text())["notes"])


def test_the_record_says_what_the_files_have(steps: tuple[Any, ...], whole: tuple[Path, int, nn.Module]) -> None:
    folder, _, small = whole
    run = Run.from_json((folder / "run.json").read_text())
    stages = [row.stage for row in run.coded]
    assert stages[0] == "dense" and stages[-1] == "encoded"
    assert ("clustered" in stages, "pruned" in stages) == (True, steps is PLAIN)
    last = run.coded[-1]
    assert last.bytes == (folder / "model.esp").stat().st_size == run.files["model.esp"]
    assert last.dense_bytes == 4 * sum(p.numel() for p in Network().parameters())
    assert run.coded[0].bytes > 2 * last.bytes and all(0 < row.score <= 1 for row in run.coded if row.score is not None)
    rows = {row.name: row for row in run.coded_tensors}
    for name, symbols in sharing_of(small).symbols.items():
        weight = named_tensors(small)[name].detach()
        assert (rows[name].weights, rows[name].kept) == (weight.numel(), int(weight.count_nonzero()))
        assert rows[name].values in (0, len(weight[symbols != 0].unique()))
    assert {row.name: row.bytes for row in es.coding.inspect(folder / "model.esp").tensors if row.name in rows} == {
        name: row.bytes for name, row in rows.items()
    }
    assert "What the file holds" in render(run)
    if steps is BUDGET:
        limit = 0.3 * sum(t.numel() * t.element_size() for t in Network().state_dict().values())
        assert 0.5 * limit < last.bytes <= 1.02 * limit  # codebooks' last bits are trained after the choice
        assert any("bits by sensitivity" in note for note in run.notes)


@pytest.mark.parametrize("share", [0.5, pytest.param(0.75, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_bit_by_bit(
    share: float,
    whole: tuple[Path, int, nn.Module],
    steps: tuple[Any, ...],
    digits: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        Writes(patch, at=max(6, int(share * whole[1])), error=Killed())
        with pytest.raises(Killed):
            es.compress(network(), digits, recipe(steps), folder=folder)
    small = es.resume(folder, Network(), digits).model
    assert_same(whole[0], folder)
    assert record(whole[0]) == record(folder)
    runs = [json.loads((one / "run.json").read_text()) for one in (whole[0], folder)]
    assert runs[0]["coded"] == runs[1]["coded"] and runs[0]["coded_tensors"] == runs[1]["coded_tensors"]
    assert (whole[0] / "model.esp").read_bytes() == (folder / "model.esp").read_bytes()
    for name, symbols in sharing_of(whole[2]).symbols.items():
        assert torch.equal(symbols, sharing_of(small).symbols[name])


def test_a_rate_makes_symbols_cheaper(digits: Task) -> None:
    """The same training with and without the rate: with it, the file is smaller."""
    training = Training(epochs=4, lr=0.02, channels_last=True)
    sizes = {}
    for rate in (0.0, 20.0):
        method = SoftToHard(target=Clusters(bits=3), rate=rate)
        assert isinstance(method, Quantizer)
        learner, _ = taught(digits, training, images(), method=method)
        assert_shared(learner.model)
        symbols = sharing_of(learner.model).symbols["3.weight"].flatten()
        shares = torch.bincount(symbols).double() / len(symbols)
        sizes[rate] = -float(torch.special.xlogy(shares, shares).sum())
    assert sizes[20.0] < 0.8 * sizes[0.0]


def test_the_network_shows_values_while_weights_move_and_settles_in_time(digits: Task) -> None:
    method = SoftToHard(target=Clusters(bits=2), rate=1.0, moving_ratio=0.5)
    looks: list[tuple[int, bool]] = []

    class Seen(SoftToHard):
        def step(self, state: Any) -> None:
            super().step(state)
            looks.append((len(state.model[3].weight.unique()), state.settled))

    spied = Seen(target=method.target, rate=1.0, moving_ratio=0.5)
    taught(digits, Training(epochs=2, lr=0.02), images(), method=spied)
    assert all(values <= 5 for values, _ in looks)  # four, and zero
    settled = [settled for _, settled in looks]
    assert settled == [False] * (len(looks) // 2 - 1) + [True] * (len(looks) - len(looks) // 2 + 1)


def test_a_recipe_survives_a_file_and_a_pattern_that_matches_nothing_is_refused(digits: Task) -> None:
    for steps in RECIPES.values():
        assert parse(to_toml(recipe(steps))) == recipe(steps)
    with pytest.raises(UnknownNameError, match="Did you mean"):
        es.compress(images(), digits, Recipe(steps=(Cluster(layers={"9.weight": 3}),)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing is clustered"),
        ({"bits": 13}, "less than or equal to 12"),
        ({"bits": 3, "rate": 1.0}, "give finetune"),
        ({"bits": 3, "rate": 1.0, "finetune": Training(epochs=1, ema_decay=0.9)}, "ema_decay"),
        ({"bits": 3, "moving_ratio": 0.5}, "moving_ratio is of rate"),
        ({"bits": 3, "sensitivity_batches": 2}, "is of a budget"),
        ({"size_ratio": 2.0}, "less than or equal to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(EspalierError, match=words):
        Cluster(**given)


def test_a_budget_that_no_bits_meet_is_said(digits: Task) -> None:
    with pytest.raises(EspalierError, match="fewest bits"):
        es.compress(network(), digits, Recipe(steps=(Cluster(size_bytes=600), Encode()), batch_size=256))


def test_encode_and_save_may_follow_measure_and_nothing_else() -> None:
    Recipe(steps=(Cluster(bits=3), Measure(), Save(), Encode()))
    with pytest.raises(EspalierError, match="measure comes before the end"):
        Recipe(steps=(Measure(), Cluster(bits=3)))
