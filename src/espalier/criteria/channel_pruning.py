"""Channel pruning by LASSO: a unit is worth the penalty that it takes to do without it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.fallback import completed
from .signals.output_grams import output_grams
from .signals.passes import Batches, Loss
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def channel_pruning(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, positions: int = 10
) -> Scores:
    """Score every unit by the largest penalty under which the LASSO still uses it.

        beta(penalty) = argmin over beta of  1/2 (1 - beta)^T G (1 - beta) + penalty * sum of |beta|
        score[u]      = largest penalty at which beta[u] is not zero,  over  the largest at which any is      in [0, 1]

    G are the inner products of what units add to what their readers compute (see ``output_grams``): with factors beta
    the squared error of the readers' outputs is (1 - beta)^T G (1 - beta). The whole path is followed exactly.

    Source: He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, arXiv:1707.06168,
    section 3.1. Recalled, not re-checked against the paper's text.
    Differs: (1) all readers of a unit at once; (2) the path of penalties gives a score a unit, where the paper raises
    the penalty until few enough units are left; (3) weights are not refitted: recovery does that.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.
        positions: of each sample that are looked at in a reader's output; the paper takes 10.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    grams = output_grams(model, graph, batches, positions=positions)
    return completed(model, graph, {name: _penalties(gram) for name, gram in grams.items()})


def _penalties(gram: Tensor) -> Tensor:
    """Return the relative penalty at which each unit enters the LASSO's path."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path_gram  # here: it takes a second to import

    scale = gram.diagonal().mean()
    if not bool(gram.isfinite().all()) or not bool(scale > 0):
        return gram.sum(1)  # not finite, which is found out later; or nothing arrives from any unit
    scaled = (gram / scale).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # units alike: one of them never enters
        penalties, _, coefficients = lars_path_gram(
            Xy=scaled.sum(1), Gram=scaled, n_samples=1, method="lasso", copy_X=True, copy_Gram=True
        )
    used = torch.from_numpy(coefficients != 0)  # (units, steps)
    # beta leaves zero right after the step before the first at which it is not zero
    entry = torch.from_numpy(penalties)[(used.double().argmax(1) - 1).clamp_min(0)]
    largest = entry.max()
    return torch.where(used.any(1), entry / torch.where(largest > 0, largest, 1.0), 0.0).to(gram)
