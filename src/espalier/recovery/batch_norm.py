"""Batch-norm re-estimation: running statistics that belong to the network as it is now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import ModelError
from ..graph.recording.capture import run_model
from ..graph.recording.running import evaluating, on_device


def reestimate_batch_norm(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> int:
    """Replace the running statistics of every batch norm by averages over ``batches``; return how many it has.

        mean <- average over batches of mean_b(x),    variance <- average over batches of var_b(x), unbiased

    Each batch is normalised by its own statistics, as in training, so that every layer sees what the layers before it
    will give it. All else runs in eval mode (no dropout), and every mode and momentum is as it was afterwards.

    Source: Ioffe and Szegedy, ICML 2015, arXiv:1502.03167, algorithm 2, lines 10-11; as a step after pruning, Li et
    al., EagleEye, ECCV 2020, arXiv:2007.02491. Recalled, not re-checked against the papers' text.
    Differs: (1) each batch counts the same, whatever its size.

    Args:
        model: changed in place.
        batches: pairs (inputs, targets); inputs are a tensor, a tuple (positional) or a dict (keywords).

    Raises:
        ModelError: no batches, a batch with one value a channel, or statistics that are not finite. The model is then
            as it was.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [{name: tensor.clone() for name, tensor in norm.named_buffers(recurse=False)} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    try:
        with evaluating(model), torch.no_grad():
            _run(model, norms, batches)
    except BaseException:
        with torch.no_grad():
            for norm, buffers in zip(norms, before, strict=True):
                for name, tensor in buffers.items():
                    norm.get_buffer(name).copy_(tensor)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)


def _run(model: nn.Module, norms: list[_BatchNorm], batches: Iterable[tuple[Any, Any]]) -> None:
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's cumulative average
        norm.train()
    count = 0
    for inputs, _ in batches if norms else ():
        try:
            run_model(model, on_device(inputs, model), None)
        except ValueError as error:
            raise ModelError(f"batch norm cannot be re-estimated on this batch: {error}; leave it out") from error
        count += 1
    if norms and not count:
        raise ModelError("no batches to re-estimate batch norm on: give at least one (inputs, targets) pair")
    names = {id(module): name for name, module in model.named_modules()}
    for norm in norms:
        if not all(bool(tensor.isfinite().all()) for tensor in norm.buffers(recurse=False)):
            raise ModelError(f"the statistics of {names[id(norm)]!r} are not finite on these batches")
