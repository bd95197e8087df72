"""What the training loop and the stages of a run ask of an engine, and the answers of one process.

    at rest    whole, plain modules on the CPU, equal on every rank: traced, planned, cut, proved, saved
    at work    as the engine trains them: on its device, behind a wrapper, or in shards

Only states at rest leave a stretch of training; so whatever trains, what is cut is an ordinary module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")
Batch = tuple[Any, Tensor]


class Engine(Protocol):
    """Where a run runs. Every method is called by all ranks, in the same order.

    Attributes:
        name: for people.
        rank, ranks: this process among how many.
        device: where networks work.
        shards: whether networks at work are in shards.
    """

    name: str
    rank: int
    ranks: int
    device: torch.device
    shards: bool

    def spread(self, model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
        """Return a network and its optimizer at work; those at rest may be used up."""
        ...

    def gathered(self, model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
        """Return a network and its optimizer at rest again, rank 0's buffers everywhere."""
        ...

    def wrapped(self, model: nn.Module) -> nn.Module:
        """Return what a training batch goes through, for a network at work."""
        ...

    def accumulating(self, forward: nn.Module) -> AbstractContextManager[Any]:
        """Leave gradients where they are during a forward and backward pass that no step follows."""
        ...

    def weight(self, examples: int) -> Tensor | float:
        """Return what the mean loss of this rank's part of a batch counts, so that its mean over ranks is the batch's.

        weight = ranks * examples here / examples on all ranks
        """
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """Return a tensor's sum over ranks."""
        ...

    def lead(self, model: nn.Module) -> None:
        """Give every rank the buffers of rank 0's network at work."""
        ...

    def equal(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        """Give every rank all tensors of rank 0's network and optimizer at rest."""
        ...

    def even(self, model: nn.Module, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Return evaluation's batches so that ranks with fewer of them keep no other waiting."""
        ...

    def agreed(self, value: T) -> T:
        """Return rank 0's value (what JSON can hold) when every rank has come this far."""
        ...

    def first(self, action: Callable[[], T]) -> T:
        """Return what ``action`` returns on rank 0, which alone does it; its error is everybody's."""
        ...

    def each(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return every rank's small tensors."""
        ...


class Alone:
    """One process, on a GPU where there is one."""

    name, rank, ranks, shards = "one process", 0, 1, False

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def spread(self, model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
        move(model, optimizer, self.device)
        return model, optimizer

    def gathered(self, model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
        self.lead(model)
        move(model, optimizer, torch.device("cpu"))
        return model, optimizer

    def wrapped(self, model: nn.Module) -> nn.Module:
        return model

    def accumulating(self, forward: nn.Module) -> AbstractContextManager[Any]:
        return nullcontext()

    def weight(self, examples: int) -> Tensor | float:
        return 1.0

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def lead(self, model: nn.Module) -> None:
        pass

    def equal(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        pass

    def even(self, model: nn.Module, batches: Iterable[Batch]) -> Iterable[Batch]:
        return batches

    def agreed(self, value: T) -> T:
        return value

    def first(self, action: Callable[[], T]) -> T:
        return action()

    def each(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        return [dict(tensors)]


def move(model: nn.Module, optimizer: Optimizer | None, device: torch.device) -> None:
    """Move a network in place; counters of steps stay on the CPU, where optimizers keep them."""
    if all(tensor.device == device for tensor in (*model.parameters(), *model.buffers())):
        return
    model.to(device)
    for state in optimizer.state.values() if optimizer is not None else ():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim():
                state[key] = value.to(device)


@contextmanager
def placed(device: torch.device, *models: nn.Module) -> Iterator[None]:
    """Move networks at rest to a device while the body runs."""
    for model in models:
        move(model, None, device)
    try:
        yield
    finally:
        for model in models:
            move(model, None, torch.device("cpu"))


def like(whole: Tensor, tensor: Tensor) -> Tensor:
    """Return a whole tensor as ``tensor`` is: on its device, and this rank's shard of it where that is one."""
    placements = getattr(tensor, "placements", None)
    if placements is None:
        return whole.to(tensor.device)
    from torch.distributed.tensor import distribute_tensor

    mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
    return distribute_tensor(whole.to(mesh.device_type), mesh, placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor: its shard, or the tensor."""
    found = getattr(tensor, "to_local", None)
    return tensor if found is None else found()
