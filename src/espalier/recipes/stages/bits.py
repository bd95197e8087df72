"""Bits a layer under a budget of bytes: each layer is clustered alone with fewer and fewer, and the loss is read.

rise[t, b]  = loss(only t in 2^b values) - loss(as it is)         on training batches
bytes[t, b] = what t's stream takes in an encoded file
choose b a tensor: least sum of rises with rest + sum of bytes <= budget           `selection.bits`
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...coding import Report
from ...core import BudgetError
from ...engines.engine import placed
from ...graph.recording.tensors import named_tensors
from ...graph.sharing import Sharing, share_
from ...selection.bits import Choice, allocate
from ...selection.clustering import choose_sharing
from ...selection.rounding import round_vectors_
from ..folders.checkpoints import Handle
from ..mending import first_batches
from ..progress import bar
from ..steps import Cluster
from ..work import Work
from .encode import write

_FEWEST = 1
_TRIES = 8


def chosen_bits(step: Cluster, key: str, work: Work, handle: Handle) -> dict[str, int]:
    """Return ``{tensor: bits}`` with which the encoded file is within the step's budget.

    Raises:
        BudgetError: the fewest bits are too many.
    """
    found = work.checkpoints.once(key, lambda: work.engine.first(lambda: _chosen(step, key, work, handle)))
    said = ", ".join(f"{name} {bits}" for name, bits in found["bits"].items())
    work.journal.note(
        f"bits by sensitivity for {found['limit']:,} bytes: {said}; before training the file has {found['bytes']:,}"
    )
    return {str(name): int(bits) for name, bits in found["bits"].items()}


def _chosen(step: Cluster, key: str, work: Work, handle: Handle) -> dict[str, Any]:
    model = copy.deepcopy(handle.open().model)
    if step.vector_bits is not None:
        round_vectors_(model, step.vector_bits)
    most = step.target().by_tensor(model)
    seed = work.checkpoints.seed_of(key)
    sharings = {
        (name, bits): choose_sharing(model, step.target({name: bits}), generator=torch.Generator().manual_seed(seed))
        for name, highest in most.items()
        for bits in range(min(_FEWEST, highest), highest + 1)
    }
    sizes = _bytes(model, sharings, most)
    rises = _rises(model, sharings, work, step.sensitivity_batches)
    choices = {
        name: [Choice(bits=b, cost=sizes[n, b], loss=rises[n, b]) for n, b in sharings if n == name] for name in most
    }
    return _within(_limit(step, work), model, sharings, choices)


def _limit(step: Cluster, work: Work) -> int:
    """Return the bytes that the file may have."""
    dense = sum(one.numel() * one.element_size() for one in work.dense.open().model.state_dict().values())
    ratio = dense if step.size_ratio is None else int(step.size_ratio * dense)
    return ratio if step.size_bytes is None else min(ratio, step.size_bytes)


def _within(
    limit: int, model: nn.Module, sharings: Mapping[tuple[str, int], Sharing], choices: Mapping[str, list[Choice]]
) -> dict[str, Any]:
    """Return bits whose file, written, is within the limit."""
    aim = float(limit)
    for _ in range(_TRIES):
        rest = aim if not choices else aim - _rest(model, sharings, choices)
        found = {name: choice.bits for name, choice in allocate(choices, rest).items()}
        size = _written(_with(model, sharings, found)).bytes
        if size <= limit:
            return {"bits": found, "limit": limit, "bytes": size}
        aim -= size - limit
    raise BudgetError(f"no choice of bits makes a file within {limit:,} bytes: the last one had {size:,}")


def _rest(model: nn.Module, sharings: Mapping[tuple[str, int], Sharing], choices: Mapping[str, list[Choice]]) -> float:
    """Return the bytes of the file that bits do not change."""
    most = {name: own[-1] for name, own in choices.items()}
    whole = _written(_with(model, sharings, {name: choice.bits for name, choice in most.items()}))
    return whole.bytes - sum(choice.cost for choice in most.values())


def _with(model: nn.Module, sharings: Mapping[tuple[str, int], Sharing], bits: Mapping[str, int]) -> nn.Module:
    twin = copy.deepcopy(model)
    for pair in bits.items():
        share_(twin, sharings[pair])
    return twin


def _bytes(
    model: nn.Module, sharings: Mapping[tuple[str, int], Sharing], most: Mapping[str, int]
) -> dict[tuple[str, int], int]:
    """Return what each tensor takes with each number of bits: of files in which all have as many."""
    found: dict[tuple[str, int], int] = {}
    for bits in range(min(_FEWEST, *most.values()), max(most.values()) + 1):
        here = {name: bits for name in most if (name, bits) in sharings}
        report = _written(_with(model, sharings, here))
        found |= {(one.name, bits): one.bytes for one in report.tensors if one.name in here}
    return found


def _written(model: nn.Module) -> Report:
    """Return what the encoded file of a model takes, from a file."""
    with tempfile.TemporaryDirectory() as folder:
        return write(model, Path(folder) / "model.esp")


def _rises(
    model: nn.Module, sharings: Mapping[tuple[str, int], Sharing], work: Work, batches: int
) -> dict[tuple[str, int], float]:
    """Return how much the loss rises when one tensor alone is clustered."""
    data = first_batches(work.task, batches)
    weights = named_tensors(model)
    with placed(work.engine.device, model), bar("bits", len(sharings) + 1) as advance:
        base, found = _loss(model, work, data), {}
        for (name, bits), sharing in sharings.items():
            before = weights[name].detach().clone()
            share_(model, sharing)
            found[name, bits] = _loss(model, work, data) - base
            with torch.no_grad():
                weights[name].copy_(before)
            advance(f"{name} {bits} bits")
    return found


@torch.no_grad()
def _loss(model: nn.Module, work: Work, data: Iterable[tuple[Any, Any]]) -> float:
    """Return the mean loss over batches."""
    device, losses = work.engine.device, []
    for inputs, targets in data:
        moved: Tensor = work.task.loss(model(inputs.to(device)), targets.to(device))
        losses.append(float(moved))
    return sum(losses) / len(losses)
