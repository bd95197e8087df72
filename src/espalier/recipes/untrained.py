"""Whether a network is trained at all: to compress one that only guesses is nearly always a mistake."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..tasks.evaluation import accuracy
from .progress import each

if TYPE_CHECKING:
    from ..tasks import Task

_DEVIATIONS = 2  # of the accuracy of guesses, above its mean
_FEWEST = 20  # examples that say anything


def untrained_note(model: nn.Module, task: Task, *, trained: bool = False) -> str:
    """Return a warning if the network does no better on the validation split than guesses do, else "".

        accuracy <= p + 2 * sqrt(p * (1 - p) / n),   p: share of the commonest class among the n labels

    So few labels, or of one class, that this says nothing are a warning of their own.

    The warning is logged too, so that it is seen before the work begins. It is for classification.

    Args:
        model: before its first cut.
        task: what it does.
        trained: whether the recipe has trained it already: then it needs more of that.
    """
    if task.kind != "classification":
        return ""
    labels: list[Tensor] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in each(task.validation, "validating the dense network", len(task.validation)):
            labels.append(targets)
            yield inputs, targets

    score = accuracy(model, batches())
    counts = torch.bincount(torch.cat(labels)) if labels else torch.zeros(1)
    total = int(counts.sum())
    if total < _FEWEST or int((counts > 0).sum()) < 2:
        note = (
            f"the validation split has {total} examples of {int((counts > 0).sum())} classes: what is chosen by it is "
            "chosen nearly at random"
        )
        logging.getLogger("espalier").warning("warning: %s", note)
        return note
    share = int(counts.max()) / total
    if score > share + _DEVIATIONS * math.sqrt(share * (1 - share) / total):
        return ""
    advice = (
        "Train it longer, or with another learning rate (--train-epochs, --train-lr)"
        if trained
        else "Give it trained weights (--weights FILE, or --pretrained), or train it first (--train-epochs N)"
    )
    note = (
        f"the network {'still ' * trained}looks untrained{' after its training' * trained}: its validation accuracy is "
        f"{100 * score:.1f} %, and always answering the commonest class gives {100 * share:.1f} %. {advice}"
    )
    logging.getLogger("espalier").warning("warning: %s", note)
    return note
