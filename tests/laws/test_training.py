"""The training loop: it learns, repeats itself, goes on from any checkpoint, and keeps moments across cuts."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from espalier import trace
from espalier.core import Plan
from espalier.core.run import Epoch
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.lesson import START, Lesson, Position
from espalier.recipes.training.loop import train
from espalier.recipes.training.optimizers import TrainingError, learning_rate, new_optimizer
from espalier.recipes.training.state import State
from espalier.tasks import Task, load_task

from .lessons import ONE, equal, images, network, scores, taught


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", batch_size=128)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    cosine = Training(lr=1.0)
    values = [learning_rate(cosine, i / 100) for i in range(1, 101)]
    assert values[0] == pytest.approx(0.1) and values[9] == pytest.approx(1.0) and values[-1] == pytest.approx(0.0)
    assert values[:10] == sorted(values[:10]) and values[10:] == sorted(values[10:], reverse=True)
    cycle = [learning_rate(Training(lr=2.0, schedule="one_cycle"), i / 100) for i in range(1, 101)]
    assert max(cycle) == pytest.approx(2.0) == cycle[29] and 0.08 < cycle[0] < 0.1 and cycle[-1] == pytest.approx(0.0)
    level = Training(lr=3.0, schedule="constant", warmup_ratio=0)
    assert {learning_rate(level, i / 10) for i in range(1, 11)} == {3.0}


def test_training_learns_and_repeats_itself(digits: Task) -> None:
    runs = [taught(digits, Training(epochs=8, lr=0.05)) for _ in range(2)]
    epochs = runs[0][1].history
    assert scores(epochs) == scores(runs[1][1].history) and equal(runs[0][0].model, runs[1][0].model)
    assert (epochs[-1].accuracy or 0) > 0.8 and epochs[-1].loss < epochs[0].loss
    assert not runs[0][0].model.training and [e.epoch for e in epochs] == list(range(1, 9)) and epochs[0].stage == "x"


def test_what_is_given_is_not_changed(digits: Task) -> None:
    model = network()
    before = copy.deepcopy(model)
    taught(digits, ONE, model)
    assert equal(model, before)


OPTIONS = [
    {},
    {"optimizer": "adamw", "lr": 1e-3},
    {"channels_last": True},
    {"precision": "bfloat16"},
    {"accumulate_steps": 3},
    {"clip_norm": 0.5},
    {"ema_decay": 0.9},
    {"label_smoothing": 0.1},
    {"schedule": "one_cycle"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_every_option_trains_and_goes_on_from_any_checkpoint(options: dict, digits: Task) -> None:
    training = Training.model_validate({"epochs": 3, "lr": 0.05, **options})
    whole, end = taught(digits, training, images())
    kept: list[tuple[State, Position, dict[str, Tensor]]] = []

    def keep(position: Position, extra) -> None:
        kept.append((learner.state(0).copied(), position, {k: v.clone() for k, v in extra().items()}))

    learner = Learner.of(State(images()), training)
    train(learner, Lesson(task=digits.new_run(), training=training, stage="x", seed=3), checkpoint=keep)
    assert equal(whole.model, learner.model)
    assert end.history[-1].loss < end.history[0].loss
    for state, position, extra in kept[:: len(kept) // 4]:
        torch.manual_seed(99)
        again = Learner.of(state, training)
        lesson = Lesson(task=digits.new_run(), training=training, stage="x", seed=3)
        last = train(again, lesson, position=Position.from_data(position.to_data()), extra=extra)
        assert equal(whole.model, again.model) and equal(whole.best_known, again.best_known)
        assert scores(last.history) == scores(end.history)


def test_options_do_what_they_say(digits: Task) -> None:
    plain, _ = taught(digits, ONE, images())
    for options in ({"clip_norm": 1e-3}, {"accumulate_steps": 4}, {"label_smoothing": 0.3}, {"precision": "bfloat16"}):
        other, _ = taught(digits, ONE.model_copy(update=options), images())
        assert not equal(plain.model, other.model), options
    averaged, _ = taught(digits, ONE.model_copy(update={"ema_decay": 0.99}), images())
    assert equal(plain.model, averaged.model) and not equal(plain.model, averaged.best_known)
    assert equal(averaged.result(1).model, averaged.best_known)


def test_accumulated_batches_are_one_large_batch(digits: Task) -> None:
    steady = {"lr": 0.05, "schedule": "constant", "warmup_ratio": 0.0, "epochs": 1}
    x, y = next(iter(digits.validation))
    halves = [(x[:60], y[:60]), (x[60:120], y[60:120])]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    batches = [(a.double(), b) for a, b in halves]
    whole = [(x[:120].double(), y[:120])]
    results = []
    for data, steps in ((batches, 2), (whole, 1)):
        task = dataclasses.replace(digits, train=data, validation=whole)
        results.append(taught(task, Training.model_validate({**steady, "accumulate_steps": steps}), model)[0].model)
    for one, other in zip(results[0].parameters(), results[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_a_given_optimizer_goes_on_with_its_moments(digits: Task) -> None:
    first, _ = taught(digits, ONE)
    moments = first.optimizer.state[first.model[1].weight]["momentum_buffer"]
    again = Learner.of(first.state(1), ONE.model_copy(update={"weight_decay": 0.1}))
    assert torch.equal(again.optimizer.state[again.model[1].weight]["momentum_buffer"], moments)
    assert again.optimizer.param_groups[0]["weight_decay"] == 0.1
    other = Learner.of(first.state(1), Training(optimizer="adamw"))
    assert isinstance(other.optimizer, torch.optim.AdamW) and not other.optimizer.state


def test_only_matrices_decay_and_frozen_parameters_stay(digits: Task) -> None:
    model = network()
    model[1].weight.requires_grad_(False)
    groups = new_optimizer(model, ONE).param_groups
    assert [(len(group["params"]), group["weight_decay"] > 0) for group in groups] == [(1, True), (2, False)]
    learner, _ = taught(digits, ONE, model)
    assert torch.equal(model[1].weight, learner.model[1].weight)
    assert not torch.equal(model[4].weight, learner.model[4].weight)


def test_what_cannot_train_gets_one_error(digits: Task) -> None:
    with pytest.raises(TrainingError, match=r"x: the loss became (nan|inf).*learning rate"):
        taught(digits, Training(epochs=9, lr=1e12))
    with pytest.raises(TrainingError, match="no trainable"):
        taught(digits, ONE, network().requires_grad_(False))
    with pytest.raises(TrainingError, match="no batch"):
        taught(dataclasses.replace(digits, train=[]), ONE)


def test_momentum_after_a_cut_is_that_of_the_uncut_run(digits: Task) -> None:
    """Train, mask, train on  ==  train, cut, train on, for the surviving weights and their moments, step by step."""
    steady = Training(epochs=1, lr=0.05, schedule="constant", warmup_ratio=0, weight_decay=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).double()
    data = [(x.double(), y) for x, y in digits.validation]
    task = dataclasses.replace(digits, train=data, validation=data[:1])
    first, _ = taught(task, steady, model)
    graph = trace(first.model, data[0][0][:2])
    (group,) = graph.groups
    keep = tuple(range(0, 32, 2))
    small = first.copied()
    small.cut(graph, Plan({group: keep}))
    masked = first.copied()
    gone = [u for u in range(32) if u not in keep]

    def mask() -> None:
        with torch.no_grad():
            masked.model[3].weight[:, gone] = 0

    for inputs, targets in data * 3:
        mask()
        for learner in (small, masked):
            learner.optimizer.zero_grad()
            task.loss(learner.model(inputs), targets).backward()
            learner.optimizer.step()
    mask()
    for index, pick in ((1, lambda t: t[list(keep)]), (3, lambda t: t[:, list(keep)])):
        mine, theirs = small.model[index].weight, masked.model[index].weight
        torch.testing.assert_close(mine, pick(theirs), rtol=1e-9, atol=1e-12)
        one = small.optimizer.state[mine]["momentum_buffer"]
        other = masked.optimizer.state[theirs]["momentum_buffer"]
        torch.testing.assert_close(one, pick(other), rtol=1e-9, atol=1e-12)
    fresh = Learner.of(State(small.model), steady)  # and the moments matter: without them the next step differs
    assert not fresh.optimizer.state


def test_positions_survive_json() -> None:
    epoch = Epoch(stage="x", epoch=1, loss=0.5, accuracy=None, lr=0.1, seconds=2.0)
    position = Position(epoch=1, batch=4, loss=2.0, history=(epoch,))
    assert Position.from_data(position.to_data()) == position and START.batch == 0
