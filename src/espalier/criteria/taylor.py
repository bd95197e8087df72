"""Taylor: a unit is worth what the loss would change, to first order, if its weights were zero."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..core import ModelError, UnknownNameError
from ..graph import ranks
from ..graph.running import evaluating, forget, on_device
from .pooling import normalised, reduced
from .slices import Scores, elements, fold, slot_parameters, widened

if TYPE_CHECKING:
    from ..graph import Graph

# form: what is summed over a unit's weights, from the products w * g; the sum's absolute value is taken
_FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "unit": lambda products: products,
    "element": torch.abs,
    "square": torch.square,
}
_STOPPED = "nothing was scored on any rank"


def taylor(
    model: nn.Module,
    graph: Graph,
    *,
    batches: Iterable[tuple[Any, Any]],
    loss: Callable[[Any, Any], Tensor],
    form: str = "unit",
    reduce: str = "sum",
    normalise: str = "none",
) -> Scores:
    """Score every unit by weight times gradient, from one backward pass a batch.

        P_s      = W_s * dL/dW_s                         (a batch, element by element)
        t[u, s]  = | sum_j P_s[u, j] |                   form "unit":    the whole slice goes to zero
                   sum_j | P_s[u, j] |                   form "element": no cancellation inside a slice
                   sum_j   P_s[u, j] ^ 2                 form "square":  the paper's squared form
        score[u] = normalise over u ( reduce over slots s ( mean over batches ( t[u, s] ) ) )

    The model runs in eval mode and comes back as it was: mode, gradients, ``requires_grad``, buffers. In a group of
    processes every rank calls this with its part of each batch, and gradients are averaged over ranks before anything
    else is done with them; a loss that weighs parts by their sizes makes that the gradient of the whole batch.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771,
    section 3.1; first-order criterion of arXiv:1611.06440. Recalled, not re-checked against the papers' text.
    Differs: (1) every slot of the group counts, producers and readers alike; (2) eval mode, so that dropout does
    not blur the gradient and batch statistics do not move.

    Args:
        batches: pairs (inputs, targets); inputs are a tensor, a tuple (positional) or a dict (keywords), and move
            to the model's device.
        loss: ``loss(outputs, targets)`` -> a scalar tensor.
        form: "unit", "element" or "square".
        reduce, normalise: as in ``magnitude``.

    Raises:
        ModelError: no batches, a loss that is no finite scalar or does not depend on the model, or another model.
        UnknownNameError: an unknown form, reduction or normaliser.
    """
    if form not in _FORMS:
        raise UnknownNameError("form", form, _FORMS)
    tensors = slot_parameters(model, graph)
    sums: dict[str, list] = {}
    count = 0
    with _scoring(model, list(tensors)) as parameters:
        for inputs, targets in batches:
            value = ranks.together(partial(_loss, model, loss, inputs, targets), otherwise=_STOPPED)
            products = _products(parameters, value)
            measured = fold(graph, products, _FORMS[form])
            for name, pairs in measured.items():
                before = sums.get(name) or [(slot, 0.0) for slot, _ in pairs]
                sums[name] = [(slot, old + new.abs()) for (_, old), (slot, new) in zip(before, pairs, strict=True)]
            count += 1
    if not count:
        raise ModelError("taylor: batches is empty; give at least one (inputs, targets) pair")
    scores = {}
    for name, group in graph.groups.items():
        means = [(slot, total / count) for slot, total in sums[name]]
        size = elements([slot for slot, _ in means], tensors)
        scores[name] = normalised(reduced(means, group, reduce), normalise, size)
    return scores


def _loss(model: nn.Module, loss: Callable[[Any, Any], Tensor], inputs: Any, targets: Any) -> Tensor:
    """Return the scalar loss of one batch."""
    inputs, targets = on_device(inputs, model), on_device(targets, model)
    if isinstance(inputs, dict):
        outputs = model(**inputs)
    else:
        outputs = model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    value = loss(outputs, targets)
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ModelError("taylor: the loss must return a scalar tensor; reduce it over the batch, by its mean or sum")
    if not value.requires_grad:
        raise ModelError("taylor: the loss does not depend on the model's parameters")
    if not torch.isfinite(value):
        raise ModelError(f"taylor: the loss is {value.item()}; scores from it would mean nothing")
    return value.squeeze()


def _products(parameters: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    """Return weight times gradient for every parameter; zero where the loss does not depend on it."""
    gradients = ranks.mean(torch.autograd.grad(value, list(parameters.values()), allow_unused=True))
    return {
        name: torch.zeros_like(weight.detach()) if gradient is None else widened(weight.detach()) * widened(gradient)
        for (name, weight), gradient in zip(parameters.items(), gradients, strict=True)
    }


@contextmanager
def _scoring(model: nn.Module, names: list[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yield the named parameters, differentiable, with the model in eval mode; put everything back after."""
    given = dict(model.named_parameters(remove_duplicate=False))
    parameters = {name: given[name] for name in names if given[name].is_floating_point()}
    required = {name: p.requires_grad for name, p in parameters.items()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    # cuDNN's recurrent kernels refuse a backward pass in eval mode
    kernels = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent)
    with evaluating(model):
        try:
            for p in parameters.values():
                p.requires_grad_(True)
            with torch.enable_grad(), kernels:
                yield parameters
        finally:
            forget(model)  # modules that cache what they compute in eval mode drop it here
            for name, p in parameters.items():
                p.requires_grad_(required[name])
            with torch.no_grad():
                for buffer, before in buffers:
                    if not torch.equal(buffer, before):
                        buffer.copy_(before)
