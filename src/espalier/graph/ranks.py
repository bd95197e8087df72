"""Ranks: processes of one group cut alike, or none of them does.

    every rank   network's fingerprint, own trouble ──gather──▶ all the same, or one error everywhere
    rank 0       plan ──broadcast──▶ every rank ──gather its hash──▶ all the same, or one error everywhere
    every rank   the cut, the proof ──gather own trouble──▶ all went well, or one error everywhere

No rank raises before all have said what they have to say, so that none is left waiting. What travels is UTF-8 in byte
tensors: on the GPU where the group reaches nothing else. Without a group nothing happens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

from ..core import CutError, EspalierError, Plan, cause

T = TypeVar("T")

_alone = False
_DEVICES = {"nccl": "cuda", "xccl": "xpu"}  # backends that do not reach the CPU's memory


@contextmanager
def alone() -> Iterator[None]:
    """Let this process cut and score by itself while the body runs, as if there were no others."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def are_many() -> bool:
    """Whether this process is one of several in a group."""
    return (
        not _alone and distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    )


def agreed(plan: Plan, fingerprint: Callable[[], str]) -> Plan:
    """Return rank 0's plan on every rank, after all have found that they hold the same network.

    Args:
        plan: this rank's own; only rank 0's counts.
        fingerprint: returns that of this rank's network; it may raise.

    Raises:
        CutError: the ranks hold different networks, or another rank failed; this rank's own error if it has one.
    """
    own = together(fingerprint)
    if not are_many():
        return plan
    found = gather(own)
    if len(set(found)) > 1:
        other = next(i for i, one in enumerate(found) if one != found[0])
        raise CutError(
            f"the ranks hold different networks: rank 0's has the fingerprint {found[0]}, rank {other}'s "
            f"{found[other]}. Build, and cut so far, the same network everywhere; nothing was cut on any rank"
        )
    text = broadcast(plan.to_json() if distributed.get_rank() == 0 else "")
    hashes = gather(hashlib.sha256(text.encode()).hexdigest())
    if len(set(hashes)) > 1:
        other = next(i for i, one in enumerate(hashes) if one != hashes[0])
        raise CutError(f"rank {other} received another plan than rank 0 sent; nothing was cut on any rank")
    return Plan.from_json(text)


def together(action: Callable[[], T], *, otherwise: str = "nothing was cut on any rank") -> T:
    """Return what ``action`` returns, if it succeeds on every rank.

    Args:
        action: what every rank does.
        otherwise: what that means, in the words of the ranks on which it went well.

    Raises:
        Exception: this rank's own.
        CutError: another rank's, in its words.
    """
    if not are_many():
        return action()
    trouble: Exception | None = None
    result: Any = None
    try:
        result = action()
    except Exception as error:
        trouble = error
    said = gather("" if trouble is None else _words(trouble))
    if trouble is not None:
        raise trouble
    failed = [f"rank {i}: {words}" for i, words in enumerate(said) if words]
    if failed:
        raise CutError(f"{otherwise}, because {failed[0]}")
    return result


def mean(tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Return the means of tensors over all ranks, in one collective a type; None where no rank has one.

    Every rank gives as many, of the same shapes; what is None on one is None on all.
    """
    return [one if one is None or not are_many() else one / world() for one in total(tensors)]


def total(tensors: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Return the sums of tensors over all ranks, as ``mean`` does."""
    found = list(tensors)
    if not are_many():
        return found
    kinds: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(found):
        if tensor is not None:
            kinds.setdefault(tensor.dtype, []).append(place)
    for places in kinds.values():
        own = [tensor for place in places if (tensor := found[place]) is not None]
        flat = torch.cat([tensor.flatten() for tensor in own])
        distributed.all_reduce(flat)
        for place, tensor, one in zip(places, own, flat.split([t.numel() for t in own]), strict=True):
            found[place] = one.view(tensor.shape)
    return found


def rank() -> int:
    """Return the number of this process; 0 without a group."""
    return distributed.get_rank() if are_many() else 0


def world() -> int:
    """Return how many processes work together; 1 without a group."""
    return distributed.get_world_size() if are_many() else 1


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, EspalierError) else cause(error)


def gather(text: str) -> list[str]:
    """Return every rank's text, in the order of ranks."""
    device, world = _device(), distributed.get_world_size()
    data = torch.frombuffer(bytearray(json.dumps(text).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([len(data)], device=device))
    longest = max(int(size) for size in sizes)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(data)] = data.to(device)
    texts = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(texts, padded)
    return [_read(one[: int(size)]) for one, size in zip(texts, sizes, strict=True)]


def broadcast(text: str) -> str:
    """Return rank 0's text."""
    device = _device()
    data = torch.frombuffer(bytearray(json.dumps(text).encode()), dtype=torch.uint8).to(device)
    size = torch.tensor([len(data)], device=device)
    distributed.broadcast(size, src=0)
    if distributed.get_rank() != 0:
        data = torch.empty(int(size), dtype=torch.uint8, device=device)
    distributed.broadcast(data, src=0)
    return _read(data)


def _read(data: torch.Tensor) -> str:
    return json.loads(data.cpu().numpy().tobytes())


def _device() -> torch.device:
    """Return where a collective's tensors must lie."""
    return torch.device(_DEVICES.get(distributed.get_backend(), "cpu"))
