"""ThiNet: a unit is worth what the next layer's outputs lose without it, after all that is worth less has gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.output_grams import output_grams
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def thinet(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, positions: int = 10
) -> Scores:
    """Score every unit by its place in the greedy order of removal.

        T        = {};  again and again:  u = argmin over units not in T of  E( T + u ),   T = T + u
        E( T )   = mean over samples, sum over positions and readers  | sum over v in T of y_v |^2
        score[u] = (place of u in that order) / units                                                in (0, 1]

    y_v is what v adds to what its readers compute (see ``output_grams``).

    Source: Luo, Wu and Lin, ThiNet: A Filter Level Pruning Method for Deep Neural Network Compression, ICCV 2017,
    arXiv:1707.06342, section 3.2, algorithm 1. Recalled, not re-checked against the paper's text.
    Differs: (1) all readers of a unit at once; (2) all outputs at the sampled positions, where the paper draws one
    output at each; (3) the survivors' weights are left as they are: recovery refits them.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        positions: of each sample that are looked at in a reader's output; the paper takes 10.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    grams = output_grams(model, graph, batches, positions=positions)
    return completed(model, graph, {name: _order(gram) for name, gram in grams.items()})


def _order(gram: Tensor) -> Tensor:
    """Return each unit's place in the greedy order, over the number of units."""
    if not bool(gram.isfinite().all()):
        return gram.sum(1)  # not finite either, which is found out later
    size = len(gram)
    own, cross = gram.diagonal().clone(), torch.zeros_like(gram[0])
    scores = torch.zeros_like(own)
    for place in range(1, size + 1):
        unit = int((own + 2 * cross).argmin())
        scores[unit] = place / size
        own[unit] = torch.inf
        cross = cross + gram[unit]
    return scores
