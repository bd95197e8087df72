"""Mutual information: a unit is worth what its activation tells of the class."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..graph import ranks
from .signals.activations import by_sample, labels, observe
from .signals.fallback import completed
from .signals.passes import STOPPED, Batches, Loss, Seen
from .signals.slices import Scores

if TYPE_CHECKING:
    from ..graph import Graph


def mutual_information(
    model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None, bins: int = 8
) -> Scores:
    """Score every unit by the mutual information of its activation and the class, in nats.

        a[n, u]  = mean over positions of x[n, u] at the group's last reader, in ``bins`` bins of equal numbers
        score[u] = sum over bins b and classes c  p(b, c) log( p(b, c) / ( p(b) p(c) ) )

    Needs one class label a sample. Keeps one number a sample and unit until the end: the quantiles need them all.

    Source: Xing and Hu, Two-Phase Construction of Multilayer Perceptrons Using Information Theory, IEEE Transactions
    on Neural Networks 20(4), 2009. Recalled, not re-checked against the paper's text.
    Differs: (1) relevance to the class alone, without the paper's second phase over pairs of units; (2) quantiles,
    where the paper estimates densities.

    Args:
        batches: as in ``taylor``; targets are classes (samples,), or soft ones (samples, classes).
        loss: not used; data-driven criteria take the same arguments.
        bins: of the activation; values that are equal share one.

    Raises:
        ModelError: no batches, one that does not suit the model, or targets that are no classes.
    """
    kept: dict[str, list[Tensor]] = {}
    classes: list[Tensor] = []

    def use(name: str, readings: list[Tensor], seen: Seen) -> None:
        if len(classes) < seen.number:
            classes.append(functional.one_hot(*labels(seen)))
        values = by_sample(readings[-1], seen.samples, lambda rows: rows.mean(1))
        if values is not None:
            kept.setdefault(name, []).append(values)

    seeing = partial(observe, model, graph, batches, lambda x: x.mean(2), use)
    ranks.together(seeing, otherwise=STOPPED)
    if not classes:
        return completed(model, graph, {})
    numbers = _of_all_ranks(torch.cat(classes))
    known = {name: _of_all_ranks(torch.cat(parts)) for name, parts in sorted(kept.items())}
    return completed(model, graph, {name: _information(values, numbers, bins) for name, values in known.items()})


def _of_all_ranks(rows: Tensor) -> Tensor:
    """Return the rows of all ranks, one rank after the other."""
    if not ranks.are_many():
        return rows
    counts = torch.zeros(ranks.world(), dtype=torch.long, device=rows.device)
    counts[ranks.rank()] = len(rows)
    (everyone,) = ranks.total([counts])
    assert everyone is not None
    start = int(everyone[: ranks.rank()].sum())
    wide = rows.new_zeros(int(everyone.sum()), *rows.shape[1:])
    wide[start : start + len(rows)] = rows
    (found,) = ranks.total([wide])
    assert found is not None
    return found


def _information(values: Tensor, classes: Tensor, bins: int) -> Tensor:
    """Return the mutual information of each column of values (samples, units) and the classes, one-hot."""
    if not bool(values.isfinite().all()):
        return values.sum(0)  # not finite either, which is found out later
    rising = values.T.contiguous().sort(1).values
    places = torch.arange(1, bins, device=values.device) * len(values) // bins
    edges = rising[:, places.clamp(max=len(values) - 1)].contiguous()
    which = torch.searchsorted(edges, values.T.contiguous(), right=True)  # (units, samples), 0 ... bins - 1
    joint = torch.stack([(which == b).double() @ classes.double() for b in range(bins)], 1) / len(values)
    apart = joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True)
    return torch.where(joint > 0, joint * (joint / apart.clamp_min(1e-300)).log(), 0.0).sum((1, 2))
