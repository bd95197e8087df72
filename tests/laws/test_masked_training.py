"""Training with masks: what they hide is exactly zero after every step; and the gradual schedule is its formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from espalier.graph.masks import Masks, mask_, masks_of
from espalier.graph.recording.tensors import named_tensors
from espalier.methods import MethodError
from espalier.methods.sparsity.gradual_magnitude import GradualMagnitude
from espalier.recipes import Training
from espalier.recipes.training.learner import Learner
from espalier.recipes.training.masking import Masking
from espalier.recipes.training.state import State
from espalier.selection.sparsity import Sparsity
from espalier.tasks import Task

from .lessons import images, taught
from .masked import hidden, sparse

SHORT = Training(epochs=1, lr=0.05)


def assert_zero(learner: Learner, count: int = 3) -> None:
    """See that what the masks hide is zero in the network, its moments and its average."""
    masks = masks_of(learner.model).kept
    assert len(masks) == count and all(not values.any() for values in hidden(learner.model).values())
    tensors = named_tensors(learner.model)
    moments = 0
    for name, kept in masks.items():
        for value in learner.optimizer.state[tensors[name]].values():
            if isinstance(value, Tensor) and value.shape == kept.shape:
                moments += 1
                assert not value[~kept].any() and value[kept].any()
    assert moments >= count
    if learner.average is not None:
        averaged = named_tensors(learner.average.model)
        assert all(not averaged[name].detach()[~kept].any() and averaged[name].any() for name, kept in masks.items())


@pytest.mark.parametrize(
    "training",
    [
        Training(epochs=2, lr=0.1, momentum=0.9, weight_decay=0.1),
        Training(epochs=2, lr=0.01, optimizer="adamw", weight_decay=0.5),
        Training(epochs=2, lr=0.05, ema_decay=0.9, accumulate_steps=2, clip_norm=0.5, channels_last=True),
    ],
    ids=["momentum", "adamw", "average"],
)
def test_masked_weights_are_zero_after_every_step(training: Training, digits: Task) -> None:
    model = sparse()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)  # as if somebody had filled the zeros meanwhile: training begins with them
    learner, _ = taught(digits, training, model)
    assert_zero(learner)


def test_zeros_hold_between_steps_too(digits: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    forward = nn.Sequential.forward

    def look(self: nn.Sequential, x: Tensor) -> Tensor:
        looks.append(all(not values.any() for values in hidden(self).values()))
        return forward(self, x)

    monkeypatch.setattr(nn.Sequential, "forward", look)
    taught(digits, Training(epochs=1, lr=0.5, momentum=0.9), sparse())
    assert len(looks) > 5 and all(looks)


def test_momentum_of_before_moves_nothing(digits: Task) -> None:
    learner, _ = taught(digits, SHORT, images())
    model, optimizer = learner.model, learner.optimizer
    mask_(model, Masks({"3.weight": torch.rand(8, 8, 3, 3) > 0.5}))
    after = Learner.of(State(model, optimizer), SHORT)
    Masking(after)
    assert_zero(after, count=1)


def test_gradients_of_masked_weights_do_not_count_in_the_norm(digits: Task) -> None:
    """With all but one layer masked away, clipping must see that layer's gradient alone."""
    model = images()
    mask_(model, Masks({"0.weight": torch.zeros(8, 1, 3, 3).bool(), "3.weight": torch.zeros(8, 8, 3, 3).bool()}))
    norms: list[Tensor] = []
    clip = nn.utils.clip_grad_norm_

    def spy(parameters: Any, limit: float) -> Tensor:
        given = list(parameters)
        norms.extend(p.grad for p in given if p.grad is not None and p.shape in ((8, 1, 3, 3), (8, 8, 3, 3)))
        return clip(given, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", spy)
        taught(digits, Training(epochs=1, lr=0.1, clip_norm=1.0), model)
    assert norms and not any(bool(one.any()) for one in norms)


class Told:
    """A context of a method, as far as the gradual schedule asks."""

    steps = 50


@pytest.mark.parametrize(("begin", "end", "every"), [(0.0, 1.0, 1), (0.2, 0.8, 7), (0.0, 0.5, 10)])
def test_the_gradual_schedule_is_the_formula(begin: float, end: float, every: int) -> None:
    torch.manual_seed(0)
    model, final = nn.Linear(100, 100), 0.9
    method = GradualMagnitude(target=Sparsity(overall=final), begin_ratio=begin, end_ratio=end, every_steps=every)
    state = method.start(model, None, Told())  # type: ignore[arg-type]
    t0, last = round(50 * begin), round(50 * end)
    expected = 0.0
    for t in range(1, 51):
        method.step(state)
        if t >= t0 and t <= last and ((t - t0) % every == 0 or t == last):
            expected = final + (0.0 - final) * (1 - (t - t0) / (last - t0)) ** 3  # equation 1 of the paper
        assert 1 - masks_of(model).density == pytest.approx(expected, abs=1e-4 + 1e-9), t
    assert 1 - masks_of(model).density == pytest.approx(final, abs=1e-4)


def test_what_the_gradual_schedule_hides_stays_zero(digits: Task) -> None:
    method = GradualMagnitude(target=Sparsity(overall=0.7), every_steps=2)
    learner, _ = taught(digits, Training(epochs=2, lr=0.1, ema_decay=0.9), images(), method=method)
    assert_zero(learner)
    assert masks_of(learner.model).density == pytest.approx(0.3, abs=0.01)


def test_a_gradual_schedule_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(MethodError, match="begin_ratio to end_ratio"):
        GradualMagnitude(target=Sparsity(overall=0.5), begin_ratio=0.5, end_ratio=0.5)
