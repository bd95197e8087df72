"""Passes over batches: the model runs, something is summed, and the model comes back as it was.

    batches ──▶ each_batch (forward only)  ──▶ outputs ─┐
            └─▶ each_loss  (a scalar a batch) ──────────┴─▶ sums ──ranks──▶ the same sums on every rank

Nothing of a batch outlives it but what a criterion adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ...core import ModelError, cause
from ...graph import ranks
from ...graph.recording.running import evaluating, forget, on_device
from .slices import widened

Batches = Iterable[tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]

STOPPED = "nothing was scored on any rank"
_THEIRS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)  # what code raises that gets a wrong batch


@dataclass(frozen=True, eq=False)
class Seen:
    """A batch that the model has run on.

    Attributes:
        number: from 1.
        inputs, targets, outputs: on the model's device.
        samples: the length of the first tensor among the inputs.
    """

    number: int
    inputs: Any
    targets: Any
    outputs: Any
    samples: int


@contextmanager
def untouched(model: nn.Module, wanted: Collection[str] = ()) -> Iterator[dict[str, nn.Parameter]]:
    """Yield the parameters in ``wanted``, which alone require gradients, with the model in eval mode.

    Everything is put back after: modes, ``requires_grad``, buffers. ``.grad`` is the caller's to leave alone.
    """
    given = dict(model.named_parameters(remove_duplicate=False))
    required = [(p, p.requires_grad) for p in given.values()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    # cuDNN's recurrent kernels refuse a backward pass in eval mode
    kernels = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent)
    with evaluating(model):
        try:
            for p, _ in required:
                p.requires_grad_(False)
            parameters = {name: given[name] for name in wanted if given[name].is_floating_point()}
            for p in parameters.values():
                p.requires_grad_(True)
            with torch.enable_grad(), kernels:
                yield parameters
        finally:
            forget(model)  # modules that cache what they compute in eval mode drop it here
            for p, before in required:
                p.requires_grad_(before)
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)


def each_batch(model: nn.Module, batches: Batches) -> Iterator[Seen]:
    """Yield every batch after the model has run on it.

    Raises:
        ModelError: there are no batches, or one that is no pair, holds NaN, or does not suit the model.
    """
    number = 0
    for number, batch in enumerate(batches, 1):
        yield _ran(model, batch, number)
    if not number:
        raise ModelError("batches is empty; give at least one (inputs, targets) pair")


def each_loss(model: nn.Module, batches: Batches, loss: Loss) -> Iterator[tuple[Seen, Tensor]]:
    """Yield every batch with its scalar loss; on every rank, or on none.

    Raises:
        ModelError: as ``each_batch``; or a loss that is no finite scalar, or does not depend on the model.
    """
    number = 0
    for number, batch in enumerate(batches, 1):
        yield ranks.together(partial(_lost, model, loss, batch, number), otherwise=STOPPED)
    if not number:
        raise ModelError("batches is empty; give at least one (inputs, targets) pair")


def samples_of_all(seen: Seen) -> int:
    """Return how many samples a batch has over all ranks."""
    device = next(one.device for one in tree_leaves(seen.inputs) if isinstance(one, Tensor))
    (total,) = ranks.total([torch.tensor(seen.samples, device=device)])
    return 0 if total is None else int(total)


def gradients(value: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the scalar's gradients, averaged over ranks; zero where it does not depend on a parameter."""
    found = ranks.mean(torch.autograd.grad(value, list(parameters.values()), allow_unused=True))
    return {
        name: torch.zeros_like(weight.detach()) if gradient is None else gradient.detach()
        for (name, weight), gradient in zip(parameters.items(), found, strict=True)
    }


def times(
    parameters: Mapping[str, Tensor], others: Mapping[str, Tensor], into: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return every parameter times its other, in at least float32.

    Args:
        into: what an earlier call returned, to be written over: fresh memory costs more than the products.
    """
    products = {} if into is None else into
    for name, weight in parameters.items():
        factors = widened(weight.detach()), widened(others[name])
        products[name] = torch.mul(*factors, out=products[name]) if name in products else torch.mul(*factors)
    return products


def _ran(model: nn.Module, batch: Any, number: int) -> Seen:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ModelError(f"batch {number} is no pair (inputs, targets) but {type(batch).__name__}")
    inputs, targets = (on_device(one, model) for one in batch)
    tensors = [one for one in tree_leaves(inputs) if isinstance(one, Tensor)]
    if not tensors or not tensors[0].dim():
        raise ModelError(f"batch {number}: its inputs hold no tensor with a dimension of samples")
    if any(one.is_floating_point() and bool(one.isnan().any()) for one in tensors):
        raise ModelError(f"batch {number}: its inputs hold NaN; scores from it would mean nothing")
    try:
        if isinstance(inputs, dict):
            outputs = model(**inputs)
        else:
            outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    except torch.OutOfMemoryError:
        raise
    except _THEIRS as error:
        raise ModelError(f"batch {number}: the model does not run on it: {cause(error)}") from error
    return Seen(number, inputs, targets, outputs, len(tensors[0]))


def _lost(model: nn.Module, loss: Loss, batch: Any, number: int) -> tuple[Seen, Tensor]:
    seen = _ran(model, batch, number)
    try:
        value = loss(seen.outputs, seen.targets)
    except torch.OutOfMemoryError:
        raise
    except _THEIRS as error:
        raise ModelError(f"batch {number}: the loss cannot be computed: {cause(error)}") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ModelError("the loss must return a scalar tensor; reduce it over the batch, by its mean or sum")
    if not value.requires_grad:
        raise ModelError("the loss does not depend on the model's parameters")
    if not torch.isfinite(value):
        raise ModelError(f"batch {number}: the loss is {value.item()}; scores from it would mean nothing")
    return seen, value.squeeze()
