"""Binarize: train the network with weights of two or three values, and say which layers have them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from ...core.run import Binarised, Point
from ...graph import trace
from ...graph.grids import Sign, grids_of
from ...graph.recording.tensors import named_tensors
from ...methods import registry
from ...methods.real_weights import chosen
from ...recovery import reestimate_batch_norm
from ..folders.checkpoints import Handle
from ..mending import first_batches
from ..steps import Binarize, Distill
from ..training.state import State
from ..work import Work
from .distill import answers
from .path import costs

_BATCHES = 64  # that batch norm's statistics are taken anew from


def do(step: Binarize, name: str, work: Work, handle: Handle) -> Handle:
    """Train, and add the result to the path."""
    work.pruned = True
    method = registry.made(step.method, step.hyperparameters())
    objective = answers(Distill(), work) if step.distill else None
    words = f"binarised by {step.method}"
    handle, score = work.learn(
        f"{name}/train", handle, step.finetune, words, objective=objective, method=(method, None)
    )
    if getattr(method, "drawn", "") == "stochastic":
        handle, score = _settled(f"{name}/statistics", work, handle)
    cost = costs(work, name, handle)
    work.visit(Point(stage=words, kind="trained", macs=cost.macs, params=cost.params, score=score))
    found = work.checkpoints.once(f"{name}/layers", lambda: [asdict(one) for one in binarised(step, work, handle)])
    work.journal.update(binarised=tuple(Binarised(**one) for one in found))
    return handle


def _settled(key: str, work: Work, handle: Handle) -> tuple[Handle, float]:
    """Return the state with batch norm's statistics of the weights that it has now; training drew others."""

    def change() -> tuple[State, None]:
        state = handle.open().copied()
        reestimate_batch_norm(state.model, first_batches(work.task, _BATCHES))
        return state, None

    after = work.checkpoints.change(key, change)[0]
    return after, work.score(f"{key}/score", after)


def binarised(step: Binarize, work: Work, handle: Handle) -> Iterable[Binarised]:
    """Yield what each layer has become that the step is for."""
    model = handle.open().model
    method: Any = registry.made(step.method, step.hyperparameters())
    inputs, tensors = grids_of(model).inputs, named_tensors(model)
    for real in chosen(model, trace(model, work.example), method):
        filters = tensors[real.name].detach().flatten(1)
        values = max(len(row.unique()) for row in filters)
        signs = isinstance(inputs.get(real.layer), Sign)
        yield Binarised(name=real.name, weights=filters.numel(), values=values, reads="signs" if signs else "numbers")
