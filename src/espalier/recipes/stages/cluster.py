"""Cluster: let weights share few values, train those, and round what is no weight."""

from __future__ import annotations

import torch

from ...core.run import Point
from ...graph.recording.tensors import named_tensors
from ...graph.sharing import Sharing, share_, sharing_of
from ...methods.clustering.soft_to_hard import SoftToHard
from ...selection.clustering import Clusters, choose_sharing
from ...selection.rounding import round_vectors_
from ..folders.checkpoints import Handle
from ..steps import Cluster
from ..training.state import State
from ..work import Work
from .bits import chosen_bits
from .path import costs


def do(step: Cluster, name: str, work: Work, handle: Handle) -> Handle:
    """Cluster, and train as the step says."""
    work.pruned = True
    bits = chosen_bits(step, f"{name}/bits", work, handle) if step.limits_size else None
    target = step.target(bits)
    handle = _parted(target, f"{name}/parted", work, handle) if step.rate else _shared(target, name, work, handle)
    if step.finetune is not None and step.finetune.epochs:
        method = SoftToHard(target=target, rate=step.rate, softness=step.softness, moving_ratio=step.moving_ratio)
        words = "clustering under a rate" if step.rate else "training of the clusters' values"
        handle, _ = work.learn(
            f"{name}/train", handle, step.finetune, words, method=(method, None) if step.rate else None
        )
    if step.vector_bits is not None:
        handle = _rounded(step.vector_bits, f"{name}/round", work, handle)
    cost, score = costs(work, name, handle), work.score(f"{name}/score", handle)
    trained = "trained" if step.finetune is not None and step.finetune.epochs else "cut"
    work.visit(Point(stage="clustered", kind=trained, macs=cost.macs, params=cost.params, score=score))
    return handle


def _shared(target: Clusters, name: str, work: Work, handle: Handle) -> Handle:
    """Return the state with clusters; the moments of single weights mean nothing for them."""

    def share() -> tuple[State, None]:
        state = handle.open().copied()
        generator = torch.Generator().manual_seed(work.checkpoints.seed_of(f"{name}/share"))
        share_(state.model, choose_sharing(state.model, target, generator=generator))
        return State(state.model, None, state.kept, state.epochs), None

    return work.checkpoints.change(f"{name}/share", share)[0]


def _parted(target: Clusters, name: str, work: Work, handle: Handle) -> Handle:
    """Return the state with the target's weights free of the clusters that they were in."""

    def part() -> tuple[State, None]:
        state = handle.open().copied()
        names = target.by_tensor(state.model)
        rest = {key: one for key, one in sharing_of(state.model).symbols.items() if key not in names}
        state.model.espalier_sharing = Sharing(rest)  # type: ignore[assignment]
        tensors = named_tensors(state.model)
        for key in names if state.optimizer is not None else ():
            state.optimizer.state.pop(tensors[key], None)  # type: ignore[union-attr]
        return state, None

    return work.checkpoints.change(name, part)[0]


def _rounded(bits: int, name: str, work: Work, handle: Handle) -> Handle:
    def round_them() -> tuple[State, None]:
        state = handle.open().copied()
        round_vectors_(state.model, bits)
        return state, None

    return work.checkpoints.change(name, round_them)[0]
