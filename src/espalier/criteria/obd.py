"""Optimal brain damage: a unit is worth the curvature of the loss along each of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .signals.curvature import Slope, twice_differentiable
from .signals.passes import Batches, Loss, each_loss, samples_of_all, times, untouched
from .signals.pooling import pooled
from .signals.slices import Scores, fold, slot_parameters, widened

if TYPE_CHECKING:
    from ..graph import Graph


def obd(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Batches,
    loss: Loss,
    probes: int | None = 1,
    seed: int = 0,
    reduce: str = "sum",
) -> Scores:
    """Score every unit by the saliency of its weights, from the Hessian's diagonal.

        h        = diagonal of d2L/dW2 over all samples
        h        ~ mean over batches and probes ( z * (H z) ),   z = +1 or -1 at random          (Hutchinson)
        score[u] = reduce over slots s ( sum_j 1/2 h_s[u, j] * W_s[u, j]^2 )

    Units: those of the loss. A negative score says that the loss curves downwards there.

    Source: LeCun, Denker and Solla, Optimal Brain Damage, NeurIPS 1989, equation 5; Hutchinson's estimate of a
    diagonal as in Yao et al., AdaHessian, AAAI 2021, arXiv:2006.00719, section 3. Recalled, not re-checked.
    Differs: (1) units instead of single weights; (2) the diagonal of the Hessian itself, where the paper drops the
    second derivatives of the non-linearities.

    Args:
        batches: as in ``taylor``.
        loss: ``loss(outputs, targets)``, a mean over samples; twice differentiable.
        probes: random directions a batch, one more backward pass each; None takes every weight in turn, which is
            exact, and for networks of a few hundred weights.
        seed: of the probes; they are drawn on the CPU, alike on every rank and machine.
        reduce: as in ``magnitude``.

    Raises:
        ModelError: as ``taylor``, or a loss that cannot be differentiated twice.
        UnknownNameError: an unknown reduction.
    """
    tensors = slot_parameters(model, graph)
    generator = torch.Generator().manual_seed(seed)
    diagonal: dict[str, Tensor] = {name: torch.zeros_like(widened(one)) for name, one in tensors.items()}
    samples = 0
    with untouched(model, tensors) as parameters, twice_differentiable():
        for seen, value in each_loss(model, batches, loss):
            slope = Slope(value, parameters)
            everyone = samples_of_all(seen)
            for probe in _each_weight(parameters) if probes is None else _signs(parameters, probes, generator):
                for name, curved in slope.curve(probe).items():
                    diagonal[name] += widened(curved) * probe[name] * (everyone / (probes or 1))
            samples += everyone
        squares = times(parameters, {name: p.detach() for name, p in parameters.items()})
    saliency = {name: diagonal[name] * square / (2 * samples) for name, square in squares.items()}
    return pooled(graph, tensors, fold(graph, saliency, lambda one: one), reduce=reduce, normalise="none")


def _signs(parameters: Mapping[str, Tensor], probes: int, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Yield random directions of +1 and -1."""
    for _ in range(probes):
        yield {
            name: (torch.randint(2, p.shape, generator=generator) * 2 - 1).to(widened(p.detach()))
            for name, p in parameters.items()
        }


def _each_weight(parameters: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the direction of every single weight."""
    nowhere = {name: torch.zeros_like(widened(p.detach())) for name, p in parameters.items()}
    for zeros in nowhere.values():
        flat = zeros.view(-1)
        for place in range(len(flat)):
            flat[place] = 1
            yield nowhere
            flat[place] = 0
