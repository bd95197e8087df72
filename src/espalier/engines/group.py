"""A group of processes: what its ranks tell each other. DDP and FSDP2 stand on it.

Numbers travel as tensors, words as JSON (``graph.ranks``); nothing is pickled.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.optim import Optimizer

from ..graph import ranks
from ..graph.recording.tensors import named_tensors
from . import EngineError
from .engine import local

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)  # rank 0 alone reads the test split and measures latency while the others wait
_STOPPED = "the run stops on every rank"


@dataclass(frozen=True)
class Place:
    """A process in its group."""

    rank: int
    ranks: int
    device: torch.device


def joined() -> Place | None:
    """Return this process's place in its group, which it joins where torchrun started it; None when it is alone."""
    if not distributed.is_available():
        return None
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE") or 1) < 2 or "RANK" not in os.environ:
            return None
        device = _device()
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"  # states at rest are on the CPU
        store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
        # after a restart torchrun's store still has the addresses of the processes that are gone
        own = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT') or 0}", store)
        distributed.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=_PATIENCE)
        atexit.register(_leave)
    elif distributed.get_world_size() < 2:
        return None
    return Place(distributed.get_rank(), distributed.get_world_size(), _device())


def _leave() -> None:
    """End the group while Python still stands: left to the process's end, its threads may be torn down under it."""
    if distributed.is_initialized():
        gc.collect()  # wrappers and errors in cycles hold the group, whose threads go only with its last owner
        distributed.destroy_process_group()


def _device() -> torch.device:
    """Return this process's own GPU where the machine has any.

    Raises:
        EngineError: there are fewer GPUs than processes.
    """
    if not torch.cuda.is_available() or (distributed.is_initialized() and distributed.get_backend() == "gloo"):
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK") or 0)
    if number >= torch.cuda.device_count():
        raise EngineError(
            f"process {number} of this machine has no GPU of its own: there are {torch.cuda.device_count()}. Give "
            "torchrun a smaller --nproc-per-node, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on CPUs"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


class Group:
    """What DDP and FSDP2 have in common."""

    def __init__(self, place: Place) -> None:
        self.rank, self.ranks, self.device = place.rank, place.ranks, place.device

    def weight(self, examples: int) -> Tensor | float:
        total = torch.tensor(float(examples), device=self.device)
        distributed.all_reduce(total)
        return examples * self.ranks / total

    def sum(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        distributed.all_reduce(total)
        return total

    def lead(self, model: nn.Module) -> None:
        for buffer in model.buffers():
            distributed.broadcast(local(buffer), src=0)

    def equal(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        with torch.no_grad():
            for tensor in named_tensors(model).values():
                _broadcast(tensor)
            for parameter in _parameters(optimizer):
                for _, value in sorted(optimizer.state.get(parameter, {}).items()) if optimizer is not None else ():
                    if isinstance(value, Tensor):
                        _broadcast(value)

    def agreed(self, value: T) -> T:
        said = ranks.broadcast(json.dumps(value) if self.rank == 0 else "")
        ranks.gather("")  # rank 0 goes on, and may remove files, when nobody needs the last ones any more
        return json.loads(said)

    def first(self, action: Callable[[], T]) -> T:
        def act() -> T | None:
            if self.rank:
                return None
            with ranks.alone():
                return action()

        done = ranks.together(act, otherwise=_STOPPED)
        return json.loads(ranks.broadcast(json.dumps(done) if self.rank == 0 else ""))

    def each(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        plain = {name: [str(one.dtype).removeprefix("torch."), one.tolist()] for name, one in tensors.items()}
        return [
            {
                name: torch.tensor(values, dtype=getattr(torch, kind))
                for name, (kind, values) in json.loads(text).items()
            }
            for text in ranks.gather(json.dumps(plain))
        ]


def _broadcast(tensor: Tensor) -> None:
    """Take rank 0's values, whatever the strides."""
    whole = tensor.detach().contiguous()
    distributed.broadcast(whole, src=0)
    tensor.detach().copy_(whole)


def _parameters(optimizer: Optimizer | None) -> list[Tensor]:
    return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]
