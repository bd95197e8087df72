"""Optimizers and learning rates.

    lr(t) = peak * rise(t / warm)                                  while t < warm, warm = warmup_ratio
    lr(t) = peak * (1 + cos(pi * (t - warm) / (1 - warm))) / 2     after it ("cosine"), t in (0, 1] over the stretch

"cosine" rises linearly, "one_cycle" on a cosine from peak / 25 over 0.3 of the stretch at least, "constant" stays up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...core import EspalierError

if TYPE_CHECKING:
    from ..steps import Training

KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
_CYCLE_START = 1 / 25  # of the peak: where one-cycle begins
_CYCLE_WARM = 0.3  # share of the steps on the way up


class TrainingError(EspalierError):
    """Training cannot go on: the loss is not a finite number, or a split holds no data."""


def learning_rate(training: Training, progress: float) -> float:
    """Return the learning rate at ``progress`` in (0, 1) of a stretch; steps ask in their middles: none is lost at 0.

    *Source* of one-cycle: Smith and Topin, arXiv:1708.07120. *Differs*: (1) momentum stays; (2) the last part is the
    cosine's own end, not a further drop by a factor of ten thousand.
    """
    cycle = training.schedule == "one_cycle"
    warm = max(training.warmup_ratio, _CYCLE_WARM) if cycle else training.warmup_ratio
    if progress < warm:
        share = progress / warm
        if cycle:
            share = _CYCLE_START + (1 - _CYCLE_START) * (1 - math.cos(math.pi * share)) / 2
        return training.lr * share
    if training.schedule == "constant":
        return training.lr
    return training.lr * (1 + math.cos(math.pi * (progress - warm) / (1 - warm))) / 2


def new_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return an optimizer over the trainable parameters; only matrices and kernels decay.

    Raises:
        TrainingError: there is nothing to train.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("the model has no trainable parameter")
    kinds = [p for p in trainable if p.dim() > 1], [p for p in trainable if p.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": parameters} for parameters in kinds if parameters]
    made = KINDS[training.optimizer](groups, lr=training.lr)
    set_options(made, training)
    return made


def set_options(optimizer: torch.optim.Optimizer, training: Training) -> None:
    """Give an optimizer that goes on with its moments the options of another stretch of training."""
    for group in optimizer.param_groups:
        decays = any(parameter.dim() > 1 for parameter in group["params"])
        group["weight_decay"] = training.weight_decay if decays else 0.0
        if isinstance(optimizer, torch.optim.SGD):
            group["momentum"], group["nesterov"] = training.momentum, training.momentum > 0


def continued(optimizer: torch.optim.Optimizer | None, model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer for a stretch: the given one where it is of the asked kind, else a new one."""
    if optimizer is None or type(optimizer) is not KINDS[training.optimizer]:
        return new_optimizer(model, training)
    set_options(optimizer, training)
    return optimizer
