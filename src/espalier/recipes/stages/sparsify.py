"""Sparsify: mask the smallest weights, at once, in rounds with training, or while the network is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch

from ...core.run import Density, Point
from ...graph.masks import densities, mask_
from ...methods.sparsity.gradual_magnitude import GradualMagnitude
from ...selection.sparsity import choose_masks
from ..folders.checkpoints import Handle
from ..steps import Sparsify
from ..training.state import State
from ..work import Work
from .path import costs


def do(step: Sparsify, name: str, work: Work, handle: Handle) -> Handle:
    """Mask, and train as the step says."""
    work.pruned = True
    handle = _gradual(step, name, work, handle) if step.schedule == "gradual" else _rounds(step, name, work, handle)
    found = work.checkpoints.once(f"{name}/densities", lambda: [asdict(one) for one in densities(handle.open().model)])
    told(work, [Density(**one) for one in found])
    return handle


def _rounds(step: Sparsify, name: str, work: Work, handle: Handle) -> Handle:
    """Mask and train, a round after the other; each hides an equal share of the survivors.

    left after round k = (1 - sparsity) ** (k / rounds)
    """
    for done in range(1, step.rounds + 1):
        stage = "sparsified" if step.rounds == 1 else f"sparsified {done} of {step.rounds}"
        handle = _masked(step, f"{name}/mask-{done}", work, handle, done / step.rounds)
        _visit(work, f"{name}/mask-{done}", handle, stage)
        if step.finetune is not None and step.finetune.epochs:
            key = f"{name}/train-{done}"
            handle, score = work.learn(key, handle, step.finetune, f"fine-tuning after {stage}")
            _visit(work, key, handle, stage, score)
    return handle


def _masked(step: Sparsify, key: str, work: Work, handle: Handle, share: float) -> Handle:
    """Return the state with masks that are ``share`` of the way to the target."""
    target = step.target().mapped(lambda final: 1 - (1 - final) ** share)

    def work_on() -> tuple[State, None]:
        state = handle.open().copied()
        generator = torch.Generator().manual_seed(work.checkpoints.seed_of(key))
        mask_(state.model, choose_masks(state.model, target, ranking=step.ranking, generator=generator))
        return state, None

    return work.checkpoints.change(key, work_on)[0]


def _gradual(step: Sparsify, name: str, work: Work, handle: Handle) -> Handle:
    """Train, and mask meanwhile."""
    assert step.finetune is not None
    method = GradualMagnitude(
        target=step.target(), begin_ratio=step.begin_ratio, end_ratio=step.end_ratio, every_steps=step.every_steps
    )
    words = "gradual sparsification"
    handle, score = work.learn(f"{name}/gradual", handle, step.finetune, words, method=(method, None))
    _visit(work, f"{name}/gradual", handle, words, score)
    return handle


def _visit(work: Work, key: str, handle: Handle, stage: str, score: float | None = None) -> None:
    """Put a state on the path: just masked, or trained to a score."""
    cost = costs(work, key, handle)
    kind: Any = "cut" if score is None else "trained"
    score = work.score(f"{key}/score", handle) if score is None else score
    work.visit(Point(stage=stage, kind=kind, macs=cost.macs, params=cost.params, score=score))


def told(work: Work, found: Iterable[Density]) -> None:
    """Write down how many weights are left, and what a user should know of them."""
    rows = tuple(found)
    work.journal.update(densities=rows)
    empty = [row.name for row in rows if not row.kept]
    if empty:
        work.journal.note(f"{', '.join(empty)}: no weight is left, so nothing comes through; give it a share in layers")
