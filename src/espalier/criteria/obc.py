"""Optimal brain compression: a unit is worth the error of its readers once their other weights have been refitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.passes import Batches, Loss
from .signals.reader_calls import ReaderCall, call_sums
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph

_MOST_FEATURES = 8192  # of a reader: 512 MiB for its second moments


def obc(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss | None = None,
    positions: int = 10,
    damping: float = 1e-2,
) -> Scores:
    """Score every unit by the least squared error that its readers can reach without it.

        H        = mean over samples, sum over positions ( x x^T ) + damping * mean of its diagonal * 1      (a reader)
        score[u] = sum over readers and outputs i  ( w_i[u]^T ( (H^-1)[u, u] )^-1 w_i[u] )

    x is what a weight multiplies (a patch, a token); [u] and [u, u] are the features of unit u: the block of a unit's
    weights is removed at once, and the others follow.

    Source: Frantar, Singh and Alistarh, Optimal Brain Compression, NeurIPS 2022, arXiv:2208.11580, section 4, with the
    block of a unit for the block of weights; Hassibi and Stork, NeurIPS 1992. Recalled, not re-checked.
    Differs: (1) blocks are units; (2) scored once, each unit by itself, where the paper removes one block and updates H
    before the next; (3) a group one of whose readers multiplies more than 8192 features takes the fallback of
    ``fallback.completed``.

    Memory: features^2 numbers a reader; time: features^3 operations.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        positions: of each sample that are looked at in a reader's output.
        damping: of H's diagonal, as a ratio of its mean.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    facts: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def take(call: ReaderCall) -> Tensor | None:
        matrix = call.matrix()
        if matrix.shape[2] > _MOST_FEATURES:
            return None
        units = call.units().repeat_interleave(matrix[:, 0].numel() // call.channels).reshape(len(matrix), -1)
        facts.setdefault((call.group, call.number), (matrix.double(), units))
        x = call.features(positions)
        return (x.mT @ x).double() * call.share(positions)

    sums, samples = call_sums(model, graph, batches, take)
    known = {}
    for name, readings in sums.items():
        total = torch.zeros(graph.groups[name].size + 1, dtype=torch.float64, device=readings[0].device)
        for number, moments in enumerate(readings):
            for block in zip(moments / samples, *facts[name, number], strict=True):
                _add_errors(total, *block, damping)
        known[name] = total[:-1]
    return completed(model, graph, known)


def _add_errors(total: Tensor, moments: Tensor, matrix: Tensor, units: Tensor, damping: float) -> None:
    """Add the errors of one block of a reader: moments (features, features), matrix (outputs, features)."""
    typical = moments.diagonal().mean()
    if not bool(typical > 0) or not bool(moments.isfinite().all()):
        total += 0 * moments.sum()  # nothing arrives; what is not finite is found out later
        return
    damped = moments / typical + damping * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped)) / typical
    order = units.argsort(stable=True)
    present, counts = units[order].unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    for count in counts.unique().tolist():  # units of as many features are solved together
        same = counts == count
        where = order[starts[same][:, None] + torch.arange(count, device=order.device)]  # (units, features)
        weights = matrix[:, where].movedim(0, 2)  # (units, features, outputs)
        own = inverse[where[:, :, None], where[:, None, :]]
        total.index_add_(0, present[same], (weights * torch.linalg.solve(own, weights)).sum((1, 2)))
