"""HRank: a unit is worth the rank of its feature map."""

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


def hrank(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, samples: int = 16) -> Scores:
    """Score every unit by the mean rank of the maps it makes, one a sample.

        score[u] = mean over readers and samples ( rank of x[n, u], (height, width) )

    Maps in space and time take the mean rank of their unfoldings along each dimension; what has no map (a token, a
    hidden unit) has rank 1 where it is not zero.

    Source: Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020, arXiv:2002.10179, section 3.2.
    Recalled, not re-checked against the paper's text.
    Differs: (1) maps as readers see them, all of a unit's readers; (2) three dimensions.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        samples: of each batch that are looked at, its first; a singular value decomposition a map takes its time.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """

    def take(call: ReaderCall) -> Tensor:
        x = call.x.movedim(call.dim, 1) if call.dim > 0 else call.x.movedim(call.dim, 0)[None]
        maps = x[:samples][:, call.positions.flatten().to(x.device)]
        ranks = _ranks(maps.reshape(len(maps), *call.positions.shape, *x.shape[2:]))
        return torch.stack([ranks.sum(0), torch.full_like(ranks[0], len(maps))])

    sums, _ = call_sums(model, graph, batches, take)
    known = {name: torch.stack([one[0] / one[1] for one in readings]).mean(0) for name, readings in sums.items()}
    return completed(model, graph, known)


def _ranks(maps: Tensor) -> Tensor:
    """Return the mean rank of unfoldings of each map: (samples, units, k, ...) to (samples, units), float64."""
    spatial = maps.dim() - 3
    if spatial < 2 or not bool(maps.isfinite().all()):  # what is not finite is found out later
        return (maps != 0).flatten(2).any(2).double() + 0 * maps.flatten(2).sum(2).double()
    unfoldings = [maps] if spatial == 2 else [maps.movedim(3 + mode, 3).flatten(4) for mode in range(spatial)]
    return torch.stack([torch.linalg.matrix_rank(one).double().mean(2) for one in unfoldings]).mean(0)
