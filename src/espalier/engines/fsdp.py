"""FSDP2: every rank holds a shard of each weight and of its moments, and a part of each batch.

    plain network, CPU ──spread──▶ copy on the device ──fully_shard──▶ shards: forward, backward, step
            ▲                                                             │
            └──────────────────── gathered: full tensors ◀────────────────┘

The plain network stays on every rank's CPU meanwhile and takes the full tensors again, so what is cut and saved is an
ordinary module. Blocks (the modules of a ``ModuleList`` or ``Sequential`` that have children) are sharded one by one,
what is left over as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ..graph.recording.tensors import named_tensors
from .engine import Batch, like
from .group import Group, Place


class Fsdp(Group):
    """Shards behind ``fully_shard``."""

    name, shards = "fsdp", True

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._mesh = init_device_mesh(place.device.type, (place.ranks,))
        self._plain: WeakKeyDictionary[nn.Module, tuple[nn.Module, Optimizer | None]] = WeakKeyDictionary()

    def spread(self, model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
        """Return shards of a copy; the plain network and its optimizer are kept for ``gathered``."""
        work = copy.deepcopy(model).to(self.device)
        for block in _blocks(work):
            fully_shard(block, mesh=self._mesh, reshard_after_forward=True)
        fully_shard(work, mesh=self._mesh, reshard_after_forward=True)
        self._plain[work] = model, optimizer
        if optimizer is None:
            return work, None
        names = {parameter: name for name, parameter in model.named_parameters()}
        sharded = dict(work.named_parameters())
        new: dict[Tensor, Tensor] = {parameter: sharded[name] for parameter, name in names.items()}
        return work, _remade(optimizer, new, like)

    def gathered(self, model: nn.Module, optimizer: Optimizer | None) -> tuple[nn.Module, Optimizer | None]:
        self.lead(model)
        plain, before = self._plain[model]
        whole = named_tensors(plain)
        with torch.no_grad():
            for name, tensor in named_tensors(model).items():
                whole[name].copy_(_full(tensor))
        if optimizer is None or before is None:
            return plain, None
        targets = dict(plain.named_parameters())
        new: dict[Tensor, Tensor] = {parameter: targets[name] for name, parameter in model.named_parameters()}
        return plain, _remade(optimizer, new, lambda value, _: _full(value).cpu())

    def wrapped(self, model: nn.Module) -> nn.Module:
        return model

    @contextmanager
    def accumulating(self, forward: nn.Module) -> Iterator[None]:
        assert isinstance(forward, FSDPModule)
        forward.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            forward.set_requires_gradient_sync(True)

    def even(self, model: nn.Module, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Yield the batches; a rank that has one fewer goes forward once more, as its shards are waited for."""
        if not isinstance(model, FSDPModule):
            yield from batches
            return
        seen, inputs = 0, None
        for seen, (inputs, targets) in enumerate(batches, 1):  # noqa: B007 what is left of them is used below
            yield inputs, targets
        for _ in range(len(batches) - seen):  # type: ignore[arg-type]  # the length is that of all ranks' batches
            model(inputs.to(self.device))  # type: ignore[union-attr]


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules that are worth their own all-gather; one that shares a weight outside it is none."""
    owners: dict[Tensor, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter, set()).add(name)

    def own(name: str, module: nn.Module) -> bool:
        return all(all(other.startswith(f"{name}.") for other in owners[p]) for p in module.parameters())

    taken: list[str] = []
    for name, parent in model.named_modules():
        if not isinstance(parent, nn.ModuleList | nn.Sequential) or any(f"{name}.".startswith(t) for t in taken):
            continue
        for child, module in parent.named_children():
            path = f"{name}.{child}" if name else child
            container = isinstance(module, nn.ModuleList | nn.ModuleDict)
            if any(True for _ in module.children()) and not container and any(True for _ in module.parameters()):
                if own(path, module):
                    taken.append(f"{path}.")
                    yield module


def _remade(optimizer: Optimizer, new: Mapping[Tensor, Tensor], moved: Callable[[Tensor, Tensor], Tensor]) -> Optimizer:
    """Return an optimizer of the same class and options over other parameters, its moments moved to them."""
    groups = [{**group, "params": [new[p] for p in group["params"]]} for group in optimizer.param_groups]
    kind: Any = type(optimizer)
    made = kind(groups)
    for parameter, state in optimizer.state.items():
        target = new[parameter]
        made.state[target] = {
            key: moved(value, target) if isinstance(value, Tensor) and value.dim() else value
            for key, value in state.items()
        }
    return made


def _full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
