"""The loss and the metric of classification, for whatever a network returns."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from espalier.graph.outputs import logits


def classification_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of ``targets`` (batch,) under the outputs' logits (batch, classes)."""
    return functional.cross_entropy(logits(outputs), targets)


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the share of examples in [0, 1] whose class the model gets right, in eval mode.

    The model's training mode is what it was before.
    """
    training = model.training
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    correct, count = 0, 0
    model.eval()
    try:
        for x, y in batches:
            correct += int((logits(model(x.to(device))).argmax(1) == y.to(device)).sum())
            count += len(y)
    finally:
        model.train(training)
    return correct / count if count else 0.0
