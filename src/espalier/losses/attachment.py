"""An attachment: teachers and a student for the time of a context.

    student forward ──▶ arguments, autocast state, features of watched layers
    term(inputs, ..) ──▶ teachers: eval mode, no gradient, same autocast, same inputs ──▶ answers, features

On the way out, whatever happened inside, hooks are gone and the teachers' modes are what they were. Nothing is moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.recording.capture import Forward, run_model
from ..graph.recording.record import tensors_in
from ..graph.recording.running import device_of, evaluating, on_device
from . import hooks
from .ensemble import Ensemble
from .errors import DistillationError


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a network, as ``trace`` takes it."""

    example: Any
    forward_fn: Forward | None = None


@dataclass(eq=False)
class Attachment:
    """Teachers and a student, what they are asked, and what their layers return.

    Attributes:
        ensemble: the teachers.
        student: the network that learns.
        ran: forwards of the student, with gradients, since its features were last read.
    """

    ensemble: Ensemble
    student: nn.Module
    stack: ExitStack
    ran: int = 0
    _watched: set[tuple[nn.Module, str]] = field(default_factory=set)
    _features: dict[tuple[nn.Module, str], Tensor] = field(default_factory=dict)
    _autocast: tuple[bool, torch.dtype] | None = None
    _waiting: list[Callable[[Call], None]] = field(default_factory=list)

    def watch(self, model: nn.Module, layer: str) -> None:
        """Keep, from now on, the first tensor that ``layer`` of a teacher or of the student returns."""
        if (model, layer) in self._watched:
            return
        self._watched.add((model, layer))

        def keep(output: Any) -> None:
            found = next(tensors_in(output), None)
            if found is not None and (model is not self.student or self._counts()):
                self._features[model, layer] = found

        self.stack.callback(hooks.after(model.get_submodule(layer), keep).remove)

    def at_first_call(self, prepare: Callable[[Call], None]) -> None:
        """Have ``prepare`` called with the student's first call, before it runs."""
        self._waiting.append(prepare)

    def _counts(self) -> bool:
        """Whether this forward of the student is the one to read: an evaluation does not displace a training step."""
        return torch.is_grad_enabled() or not self.ran

    def begin(self, args: tuple, kwargs: dict) -> None:
        """Note a call of the student."""
        if self._counts():
            self._features = {key: value for key, value in self._features.items() if key[0] is not self.student}
        kind = device_of(self.student).type
        self._autocast = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        self.ran += torch.is_grad_enabled()
        waiting, self._waiting = self._waiting, []
        for prepare in waiting:
            with torch.autocast(kind, enabled=False):
                prepare(_call(args, kwargs))

    def answers(self, inputs: Any) -> list[Any]:
        """Return what each teacher answers to ``inputs``: eval mode, no gradients, the student's autocast."""
        return [self._ask(teacher, inputs) for teacher in self.ensemble.teachers]

    def _ask(self, teacher: nn.Module, inputs: Any) -> Any:
        home, device = device_of(self.student), device_of(teacher)
        enabled, dtype = self._autocast or (torch.is_autocast_enabled(home.type), torch.get_autocast_dtype(home.type))
        if device != home:
            inputs = on_device(inputs, teacher)
        with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=enabled):
            return run_model(teacher, inputs, None)

    def feature(self, model: nn.Module, layer: str) -> Tensor:
        """Return what ``layer`` returned in the last forward.

        Raises:
            DistillationError: it did not run, or the student ran more than once since its features were read.
        """
        if model is self.student and self.ran > 1:
            raise DistillationError(
                f"the student ran {self.ran} times before the term was asked: ask it after every forward with gradients"
            )
        if (model, layer) not in self._features:
            who = "student" if model is self.student else "teacher"
            raise DistillationError(
                f"layer {layer!r} of the {who} did not run: inside the context, call the very module that was attached"
            )
        return self._features[model, layer]

    def forget(self) -> None:
        """Let go of all features."""
        self.ran = 0
        self._features.clear()


@contextmanager
def attachment(ensemble: Ensemble, student: nn.Module) -> Iterator[Attachment]:
    """Yield the teachers, in eval mode, attached to the student.

    Raises:
        DistillationError: a teacher shares modules or parameters with the student, which would train it.
    """
    _check_apart(ensemble.teachers, student)
    with ExitStack() as stack:
        made = Attachment(ensemble, student, stack)
        stack.callback(made.forget)
        stack.enter_context(evaluating(*ensemble.teachers))
        stack.callback(hooks.before(student, made.begin).remove)
        yield made


def _check_apart(teachers: Sequence[nn.Module], student: nn.Module) -> None:
    modules, parameters = set(student.modules()), set(student.parameters())
    for teacher in teachers:
        if not modules.isdisjoint(teacher.modules()) or not parameters.isdisjoint(teacher.parameters()):
            raise DistillationError(
                f"the teacher {type(teacher).__name__} shares modules or parameters with the student, and would be "
                "trained with it: give a deep copy"
            )


def _call(args: tuple, kwargs: dict) -> Call:
    if args and kwargs:
        return Call((args, kwargs), lambda model, both: model(*both[0], **both[1]))
    return Call(kwargs or args)
