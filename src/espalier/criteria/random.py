"""Random: the control that every criterion must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def random(model: nn.Module, graph: Graph, *, seed: int = 0) -> Scores:
    """Score every unit by an independent draw, the same for the same seed on every machine.

        score[u] ~ uniform [0, 1)

    The weights are not read, so it works on meta tensors. The global random state is left alone.

    Source: the random control of Mittal et al., Recovering from Random Pruning, WACV 2018, arXiv:1801.10447.

    Args:
        model: not used; every criterion takes the same arguments.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(group.size, generator=generator) for name, group in graph.groups.items()}
