"""Distill: train a cut network on the dense one's answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from ... import losses
from ...core.run import Point
from ...engines.engine import placed
from ...zoo import load_weights
from ..folders.checkpoints import Handle
from ..steps import Distill
from ..training.lesson import Loss, Objective
from ..work import Work
from .path import costs


def do(step: Distill, name: str, work: Work, handle: Handle) -> Handle:
    """Train with the dense network for a teacher, and add the result to the path."""
    if not step.epochs:
        return handle
    handle, score = work.learn(name, handle, step, "distillation", objective=answers(step, work))
    cost = costs(work, name, handle)
    work.visit(Point(stage="distilled", kind="trained", macs=cost.macs, params=cost.params, score=score))
    return handle


def answers(step: Distill, work: Work) -> Objective:
    """Return what attaches the teachers to a student; they are loaded when it is used."""
    whole = losses.Together(tuple(_parts(step)))
    task_loss = work.task.loss

    @contextmanager
    def attach(student: nn.Module) -> Iterator[Loss]:
        teachers = [work.dense.open().model, *(_other(work, path) for path in step.teachers)]
        device = work.engine.device
        with placed(device, *teachers), whole.attached(teachers, student, example=work.example.to(device)) as term:
            yield Loss(
                lambda inputs, outputs, targets: term(inputs, outputs, targets, task_loss(outputs, targets)),
                learned=term,
                notes=term.notes,
            )

    return attach


def _parts(step: Distill) -> Iterator[losses.Objective]:
    if step.answers == "hinton":
        yield losses.Hinton(temperature=step.temperature, weight=step.weight)
    elif step.answers == "logits":
        yield losses.LogitRegression(weight=step.weight)
    own = step.feature_weight
    if step.features == "hints":
        hints = losses.FeatureHints(adapter=step.adapter)
        yield hints if own is None else replace(hints, weight=own)
    elif step.features == "attention":
        yield losses.AttentionTransfer() if own is None else losses.AttentionTransfer(weight=own)


def _other(work: Work, path: str) -> nn.Module:
    teacher = copy.deepcopy(work.original)
    load_weights(teacher, path)
    return teacher
