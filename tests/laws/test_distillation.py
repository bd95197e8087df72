"""Laws of distillation: teachers stay as they are, the right forward counts, and nothing is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from espalier.core import UnknownNameError
from espalier.losses import (
    AttentionTransfer,
    DistillationError,
    FeatureHints,
    Hinton,
    LogitRegression,
    Objective,
    Together,
)
from espalier.zoo.digits_cnn import digits_cnn

from .networks.distillation import ALL, ask, cut_at_random, pair

# ---- nothing is left behind -------------------------------------------------------------------------------------


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


def state(model: nn.Module) -> list[Any]:
    tensors = [t.clone() for t in (*model.parameters(), *model.buffers())]
    return [tensors, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]]


def same_state(model: nn.Module, before: list[Any]) -> bool:
    now = state(model)
    return now[1:] == before[1:] and all(torch.equal(a, b) for a, b in zip(now[0], before[0], strict=True))


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_nothing_is_left_behind(objective: Objective) -> None:
    dense, small, x = pair("digits")
    dense.train()
    dense.stem.eval()  # type: ignore[union-attr]
    small.train()
    before = state(dense)
    with objective.attached(dense, small, example=x) as term:
        assert not any(module.training for module in dense.modules())
        assert bool(list(term.parameters())) == bool(term.state_dict()) == ("learned" in repr(objective))
        for _ in range(2):
            outputs = small(x)
            term(x, outputs, None, outputs.square().mean()).backward()
        assert all(p.grad is None for p in dense.parameters())
    assert same_state(dense, before)
    assert hooks_of(dense) == hooks_of(small) == 0
    assert all(module.training for module in small.modules())


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_nothing_is_left_behind_after_an_exception(objective: Objective) -> None:
    dense, small, x = pair("digits", (0.7,))
    dense.train()
    before = state(dense)
    with pytest.raises(ZeroDivisionError), objective.attached(dense, small, example=x):
        small(x)
        raise ZeroDivisionError
    with (
        pytest.raises(RuntimeError, match="expected input"),
        objective.attached(dense, small, example=x) as term,
    ):
        outputs = small(x)
        term(torch.zeros(3, 7, 8, 8).double(), outputs, None, outputs.sum())
    unfit = FeatureHints(layers=("block1", "nothing like it"))
    with pytest.raises(UnknownNameError), unfit.attached(dense, small, example=x):
        pass
    assert same_state(dense, before)
    assert hooks_of(dense) == hooks_of(small) == 0


def test_a_copy_of_the_student_is_free_of_the_teacher() -> None:
    dense, small, x = pair("digits", (0.7,))
    with FeatureHints().attached(dense, small, example=x) as term:
        outputs = small(x)
        twin = copy.deepcopy(small)
        cut_at_random(small, x, 3, 0.8)
        twin(2 * x)  # a copy's forward must not displace what the student's own left
        assert hooks_of(twin) == 0
        found = term(x, outputs, None, torch.zeros(()))
    assert found.item() == ask(FeatureHints(), dense, small, x).item()


def test_a_teacher_must_stand_apart() -> None:
    dense, small, x = pair("digits", (0.7,))
    with pytest.raises(DistillationError, match="shares modules or parameters"):
        ask(Hinton(), small, small, x)
    twin = copy.deepcopy(dense)
    twin.head.weight = dense.head.weight  # type: ignore[union-attr]
    with pytest.raises(DistillationError, match="deep copy"):
        ask(Hinton(), dense, twin, x)


# ---- forwards ---------------------------------------------------------------------------------------------------


def test_the_first_call_serves_as_example() -> None:
    dense, small, x = pair("digits")
    both = Together((FeatureHints(), AttentionTransfer()))
    with both.attached(dense, small) as term:
        assert term.notes == ()
        lazy = term(x, small(x), None, torch.zeros(()))
        assert len(term.notes) == 4
    assert lazy.item() == ask(both, dense, small, x).item()


class Keywords(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, *, factor: Tensor) -> Tensor:
        return self.model(pixels * factor)


def test_the_first_call_may_have_keywords() -> None:
    dense, x = Keywords(digits_cnn().eval()), torch.randn(3, 1, 8, 8)
    student = Keywords(digits_cnn().eval())
    inputs = {"pixels": x, "factor": torch.tensor(2.0)}
    with AttentionTransfer().attached(dense, student) as term:
        first = term(inputs, student(**inputs), None, torch.zeros(())).item()
    with AttentionTransfer().attached(dense, student) as term:
        mixed = term(inputs, student(x, factor=torch.tensor(2.0)), None, torch.zeros(())).item()
    assert first == mixed == ask(AttentionTransfer(), dense.model, student.model, 2 * x).item() > 0


def test_an_evaluation_does_not_displace_a_training_step() -> None:
    dense, small, x = pair("digits", (0.7,))
    with FeatureHints().attached(dense, small, example=x) as term:
        outputs = small(x)
        with torch.no_grad():
            small(3 * x)
        found = term(x, outputs, None, torch.zeros(()))
    assert found.requires_grad
    assert found.item() == ask(FeatureHints(), dense, small, x).item()


def test_a_term_is_asked_after_every_forward() -> None:
    dense, small, x = pair("digits", (0.7,))
    with FeatureHints().attached(dense, small, example=x) as term:
        outputs = small(x)
        small(x)
        with pytest.raises(DistillationError, match="ran 2 times"):
            term(x, outputs, None, torch.zeros(()))
        term(x, small(x), None, torch.zeros(()))  # and it recovers
        with pytest.raises(DistillationError, match="the very module"):
            term(x, copy.deepcopy(small)(x), None, torch.zeros(()))


@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_the_teacher_follows_the_students_autocast(objective: Objective) -> None:
    dense, small, x = (part.float() for part in pair("digits"))
    seen: list[torch.dtype] = []
    with objective.attached(dense, small, example=x) as term:
        handle = dense.head.register_forward_hook(lambda m, i, o: seen.append(o.dtype))  # type: ignore[union-attr]
        with torch.autocast("cpu", torch.bfloat16):
            outputs = small(x)
        outside = term(x, outputs, None, torch.zeros(()))
        with torch.autocast("cpu", torch.bfloat16):
            inside = term(x, small(x), None, torch.zeros(()))
            assert torch.is_autocast_enabled("cpu")
        plain = term(x, small(x), None, torch.zeros(()))
    handle.remove()
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert outside.dtype == inside.dtype == torch.float32
    assert inside.item() == outside.item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ALL, ids=repr)
def test_a_compiled_student(objective: Objective) -> None:
    dense, small, x = pair("digits")
    expected = ask(objective, dense, small, x)
    torch._dynamo.reset()
    with objective.attached(dense, small, example=x) as term:
        compiled = torch.compile(small, backend="eager")
        for _ in range(2):
            found = term(x, compiled(x), None, torch.zeros(()))
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hinton(temperature=0), "temperature=0: must be above 0"),
        (lambda: Hinton(temperature=float("inf")), "temperature=inf"),
        (lambda: Hinton(weight=1.5), "weight=1.5: must be at least 0 and at most 1"),
        (lambda: LogitRegression(weight=-1), "weight=-1"),
        (lambda: FeatureHints(weight=float("nan")), "weight=nan"),
        (lambda: FeatureHints(adapter="guess"), "adapter='guess'"),  # type: ignore[arg-type]
        (lambda: AttentionTransfer(power=0), "power=0: must be above 0"),
        (lambda: AttentionTransfer(stages=0), "stages=0"),
    ],
)
def test_hyperparameters_out_of_range(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(DistillationError, match=message):
        make()
