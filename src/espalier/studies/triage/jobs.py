"""The jobs of a study of blocks, and how a worker does one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice, product
from typing import Any

import torch
from torch import nn

from ... import losses
from ...graph import trace
from ...recipes import chance, named
from ...recipes.steps import Training
from ...recipes.training.learner import Learner
from ...recipes.training.lesson import Lesson, Loss, Objective
from ...recipes.training.loop import train
from ...recipes.training.state import State
from ...tasks import Task
from ..jobs import Job, dense_job, recipe_of
from ..study import Subject
from ..work import built, task_of
from .blocks import Block, blocks, field_of, replaced
from .child import Child
from .inits import begin
from .study import Triage

_TRAINING = set(Training.model_fields)


def jobs_of(study: Triage) -> Iterator[Job]:
    """Yield everything that the study needs, dense networks first."""
    starts = {(one.name, seed): dense_job(one, seed, study.split) for one, seed in product(study.tasks, study.seeds)}
    yield from starts.values()
    shared = study.model_dump(mode="json", include={"kernel", "temperature", "kd_weight", "fit_batches", "training"})
    for subject in study.tasks:
        names = study.blocks.get(subject.name) or [block.name for block in _found(subject)]
        for seed, name, init, scope, loss in product(study.seeds, names, study.inits, study.scopes, study.losses):
            cell = {"task": subject.name, "seed": seed, "block": name, "init": init, "scope": scope, "loss": loss}
            options = {**shared, "block": name, "init": init, "scope": scope, "loss": loss}
            yield Job("triage", cell, recipe_of(subject, seed, ()), options, starts[subject.name, seed], study.split)


def do(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a block of the parent, train the child, and measure it."""
    recipe, parent, task = built(payload)
    options, seed = payload["options"], chance.derived(recipe.seed, payload["key"])
    chance.seed_all(seed)
    block = Block(options["block"], 0)
    kernel = field_of(parent, block) if options["kernel"] == "field" else 3
    network, layer = replaced(parent, block, task.example(), kernel=kernel)
    inputs = [batch for batch, _ in islice(task.train, options["fit_batches"])]
    note = begin(options["init"], layer, parent, block, inputs)
    child = Child(network, layer, alone=options["scope"] == "layer")
    curve = _taught(child, parent, task.new_run(), seed, options)
    before, after = (trace(one, task.example()).cost() for one in (parent, network.eval()))
    score = task.new_run().test_once({"child": child})["child"] if payload["split"] == "test" else None
    return {
        "test": score,
        "validation": curve[-1] if curve else None,
        "curve": curve,
        "macs_ratio": after.macs / before.macs,
        "params_ratio": after.params / before.params,
        "notes": [note] if note else [],
    }


def _taught(child: Child, parent: nn.Module, task: Task, seed: int, options: Mapping[str, Any]) -> list[float]:
    """Train the child, and return its accuracy on validation after each epoch."""
    training = Training.model_validate(options["training"])
    learner = Learner.of_own(State(child), training)
    objective = _answers(parent, task, options) if options["loss"] == "kd" else None
    lesson = Lesson(task=task, training=training, stage="triage", seed=seed, objective=objective)
    return [asdict(epoch)["accuracy"] for epoch in train(learner, lesson).history]


def _answers(parent: nn.Module, task: Task, options: Mapping[str, Any]) -> Objective:
    """Return the loss on the parent's softened answers."""
    term = losses.Hinton(temperature=options["temperature"], weight=options["kd_weight"])

    @contextmanager
    def attach(student: nn.Module) -> Iterator[Loss]:
        with term.attached(parent, student, example=task.example()) as loss:
            yield Loss(lambda given, made, wanted: loss(given, made, wanted, task.loss(made, wanted)), notes=loss.notes)

    return attach


def _found(subject: Subject) -> list[Block]:
    """Return the blocks of a subject's network, as it is before it is trained."""
    recipe = recipe_of(subject, 0, ())
    task = task_of(recipe)
    torch.manual_seed(0)
    return blocks(named.build(recipe, task), task.example())
