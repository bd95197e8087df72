"""SVD-entropy: a unit is worth how evenly its kernel's energy is spread, or what it adds to its layer's spread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core import Group, ModelError, Role
from .signals.fallback import completed
from .signals.moments import second_moments
from .signals.passes import Batches, Loss
from .signals.slices import Scores, positions, slot_parameters, widened
from .signals.spectra import contributions, entropy

if TYPE_CHECKING:
    from ..graph import Graph


def svd_entropy(model: nn.Module, graph: Graph) -> Scores:
    """Score every unit by the entropy of its own kernel's singular values.

        K        = the unit's weights in a producer, (inputs, time, height, width) or fewer dimensions
        score[u] = mean over producers and dimensions n of  E( mode-n unfolding of K )                   in [0, 1]
        E        = - sum_j q_j log q_j / log(number of singular values),    q_j = s_j^2 / sum of s^2

    Source: Alter, Brown and Botstein, PNAS 97, 2000 (the entropy); of kernels: our reading.
    Recalled, not re-checked.
    Differs: (1) the mean over all modes of a kernel of three dimensions. A unit whose weights are a vector has one
    singular value: its group takes the fallback of ``fallback.completed``.

    Raises:
        ModelError: the model is not the one that was traced, or its weights are not finite.
    """
    tensors = slot_parameters(model, graph)
    known = {}
    for name, group in graph.groups.items():
        found = [one for kernels in _kernels(tensors, group) if (one := _own(kernels)) is not None]
        if found:
            known[name] = torch.stack(found).mean(0)
    return completed(model, graph, known)


def svd_contribution(model: nn.Module, graph: Graph) -> Scores:
    """Score every unit by what its weights add to the entropy of its layers.

        A_n      = mode-n unfolding of a producer's weights;  n = 1: (units, all the rest);  and of time, height, width
        score[u] = mean over producers and n of  E( A_n ) - E( A_n without u )

    A unit that lies in the dominant direction lowers the entropy and scores below zero.

    Source: Varshavsky et al., Novel Unsupervised Feature Filtering of Biological Data, Bioinformatics 22, 2006 (the
    leave-one-out contribution). Recalled, not re-checked.
    Differs: (1) rows of weights for features; (2) mode 2 (inputs) is left out: it costs an eigenproblem of all inputs a
    unit.

    Raises:
        ModelError: the model is not the one that was traced, or its weights are not finite.
    """
    tensors = slot_parameters(model, graph)
    known = {}
    for name, group in graph.groups.items():
        found = [_left_out(kernels) for kernels in _kernels(tensors, group)]
        if found:
            known[name] = torch.stack(found).mean(0)
    return completed(model, graph, known)


def svd_contribution_data(model: nn.Module, graph: Graph, *, batches: Batches, loss: Loss | None = None) -> Scores:
    """Score every unit by what its activations add to the entropy of its group's.

        A        = activations over samples, positions and readers, (rows, units)
        score[u] = E( A ) - E( A without column u )

    Memory: units^2 numbers a group; time: 16 units^3 operations.

    Source: as ``svd_contribution``.
    Differs: (1) A is not centred: what is constant counts as a direction.

    Args:
        batches: as in ``taylor``; targets are not read.
        loss: not used; data-driven criteria take the same arguments.

    Raises:
        ModelError: no batches, or one that does not suit the model.
    """
    known = {
        name: contributions(one.products / one.count, int(one.count))
        for name, one in second_moments(model, graph, batches).items()
    }
    return completed(model, graph, known)


def _kernels(tensors: Mapping[str, Tensor], group: Group) -> list[Tensor]:
    """Return each producer's weights by unit: (units, k, inputs, ...), float64.

    Raises:
        ModelError: weights that are not finite.
    """
    found = []
    for slot in group.slots:
        if slot.role is Role.PRODUCER and slot.tensor in tensors and tensors[slot.tensor].dim() > 1:
            tensor = tensors[slot.tensor]
            if not bool(tensor.isfinite().all()):
                raise ModelError(f"{slot.tensor!r}: weights are NaN or infinite and have no score")
            found.append(widened(tensor).double().movedim(slot.dim, 0)[positions(slot, tensor.device)])
    return found


def _own(kernels: Tensor) -> Tensor | None:
    """Return the mean entropy of each unit's unfoldings; None where its kernel is a vector."""
    units, rows, *shape = kernels.shape
    wide = [n for n, length in enumerate(shape) if length > 1]
    if len(wide) < 2 and rows == 1:
        return None
    whole = kernels.reshape(units, rows, *(shape[n] for n in wide))
    start = 1 if rows > 1 else 2  # several rows a unit (a head's) are one more mode
    modes = []
    for n in range(start, whole.dim()):
        unfolded = whole.movedim(n, 1).flatten(2)
        modes.append(entropy(torch.linalg.svdvals(unfolded).square(), min(unfolded.shape[1:])))
    return torch.stack(modes).mean(0)


def _left_out(kernels: Tensor) -> Tensor:
    """Return the mean contribution of each unit to the entropy of the unfoldings."""
    units, _, _, *shape = kernels.shape
    rows = kernels.flatten(1)
    found = [contributions(rows @ rows.T, rows.shape[1])]
    for n, length in enumerate(shape):
        if length > 1:
            unfolded = kernels.movedim(n + 3, 1).flatten(2)
            parts = unfolded @ unfolded.mT  # (units, length, length): the whole is their sum
            whole = torch.linalg.eigvalsh(parts.sum(0))
            without = torch.linalg.eigvalsh(parts.sum(0) - parts)
            count = unfolded.shape[2]
            spread = entropy(whole, min(length, units * count)), entropy(without, min(length, (units - 1) * count))
            found.append(spread[0] - spread[1])
    return torch.stack(found).mean(0)
