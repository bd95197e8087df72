"""The training loop, plain: one optimizer, one schedule, and an evaluation after each epoch.

lr(t) = peak * min(t / warm, (1 + cos(pi * (t - warm) / (total - warm))) / 2),   warm = total / 10
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import EspalierError
from ..core.run import Epoch
from ..tasks.metrics import logits
from .progress import bar
from .settings import Training

if TYPE_CHECKING:
    from ..tasks import Task

_WARM_SHARE = 0.1


class TrainingError(EspalierError):
    """Training cannot go on: the loss is not a finite number, or a split holds no data."""


def finetune(
    model: nn.Module,
    task: Task,
    settings: Training,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    stage: str = "fine-tuning",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> torch.optim.Optimizer:
    """Train ``model`` in place on ``task.train`` and return the optimizer, whose moments a later cut can carry over.

    Args:
        model: moved nowhere; batches go to its device.
        task: train and validation splits, and the loss.
        settings: epochs, learning rate and so on.
        optimizer: continues with this one's moments; a new one when None.
        stage: what the epochs are for, in words.
        on_epoch: called after each epoch with its numbers.

    Raises:
        TrainingError: the loss became NaN or infinite, or the training split is empty.
    """
    optimizer = optimizer or new_optimizer(model, settings)
    steps = len(task.train)
    if not steps:
        raise TrainingError("the training split holds no batch: give more data or a smaller batch size")
    loss_of = _smoothed(task, settings)
    with _seeded(settings.seed), bar(stage, settings.epochs * steps) as advance:
        for epoch in range(settings.epochs):
            start = time.perf_counter()
            total = 0.0
            model.train()
            for step, (inputs, targets) in enumerate(task.train):
                lr = schedule((epoch * steps + step + 1) / (settings.epochs * steps)) * settings.lr
                total += _step(model, inputs, targets, loss_of, optimizer, lr)
                advance(f"epoch {epoch + 1}/{settings.epochs}  loss {total / (step + 1):.4f}")
            score = task.evaluate(model, task.validation)
            seconds = time.perf_counter() - start
            on_epoch(Epoch(stage=stage, epoch=epoch + 1, loss=total / steps, accuracy=score, lr=lr, seconds=seconds))
    model.eval()
    return optimizer


def schedule(progress: float) -> float:
    """Return the factor of the peak learning rate at ``progress`` in (0, 1]: warm-up, then cosine to zero."""
    if progress < _WARM_SHARE:
        return progress / _WARM_SHARE
    return (1 + math.cos(math.pi * (progress - _WARM_SHARE) / (1 - _WARM_SHARE))) / 2


def new_optimizer(model: nn.Module, settings: Training) -> torch.optim.Optimizer:
    """Return the optimizer of ``settings`` over the trainable parameters; only matrices and kernels decay."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainingError("the model has no trainable parameter")
    groups = [
        {"params": [p for p in trainable if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)


def _step(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    loss_of: Callable[[Any, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    lr: float,
) -> float:
    device = _device(model)
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = loss_of(model(inputs.to(device)), targets.to(device))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss became {value}: lower the learning rate (now {lr:.3g}), or check the data")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return value


def _smoothed(task: Task, settings: Training) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss: the task's own, or cross-entropy with smoothed targets where smoothing is asked for."""
    if not settings.label_smoothing:
        return task.loss
    smoothed = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    return lambda outputs, targets: smoothed(logits(outputs), targets)


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Make shuffling and dropout repeatable, and leave the caller's random numbers as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
